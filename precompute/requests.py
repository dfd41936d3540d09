"""From units of work to requests of the loader, one batch of samples at a time, in the order of sample ids."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from pipeline.data.loader import Loader, Request
from pipeline.data.order import MicroBatch
from precompute.work import Unit, without_sealed


class Feed:
    """The requests of one rank, drawn ahead by the backend, perhaps in its own thread.

    A unit is looked at again when it is begun: another job may have sealed its shards.

    Args:
        units: what this rank is to do, in order.
        store: the store's folder.
        loader: looks up sizes and draws the plan.
        batch: samples of a request; it has a row for each of the unit's views, all views of a sample side by side.
        is_stopped: true ends the feed after the unit that is begun.

    Attributes:
        begun: the units of the requests so far; a request's `step` is a position in it, its `index` the first row.
    """

    def __init__(
        self, units: Iterable[Unit], *, store: Path, loader: Loader, batch: int, is_stopped: Callable[[], bool]
    ) -> None:
        self.begun: list[Unit] = []
        self._units, self._store, self._loader = units, store, loader
        self._batch, self._is_stopped = batch, is_stopped

    def __iter__(self) -> Iterator[Request]:
        for unit in self._units:
            if self._is_stopped():
                return
            left = without_sealed(unit, self._store)
            if left is not None:
                self.begun.append(left)
                yield from unit_requests(left, len(self.begun) - 1, self._loader, self._batch)


def unit_requests(unit: Unit, position: int, loader: Loader, batch: int) -> Iterator[Request]:
    """The requests of one unit; the views of one sample follow each other, so that it is decoded once."""
    for first in range(unit.start, unit.stop, batch):
        rows = np.arange(first, min(first + batch, unit.stop))
        yield view_request(unit.views, rows, loader, step=position, first=first)


def view_request(views: tuple[int, ...], ids: np.ndarray, loader: Loader, *, step: int, first: int) -> Request:
    """The request of some samples in some views, the views of a sample side by side."""
    index, repeated = loader.index, np.repeat(ids, len(views))
    rows = loader.plan.rows(repeated, np.tile(views, len(ids)), index.widths[repeated], index.heights[repeated])
    return Request(MicroBatch(step, 0, first, repeated), rows, index.labels[repeated].astype(np.int64))
