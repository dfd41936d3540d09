"""Shared and separate decodes: decoding a JPEG costs more than all that is done with its pixels.

Both sides of a pair make the same views of the same images, from start to end: nothing of one is prefetched in the time
of the other.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks._shared.pairs import Pairs, alternate, seconds_of
from benchmarks._shared.pixels import WHOLE, backend_of, plan_rows, source_of
from benchmarks.precompute import Precompute
from pipeline.core.cpu import usable_cpus
from pipeline.data.backend import BackendOptions, Source
from pipeline.data.index import Index
from pipeline.data.plan import PlanRows
from pipeline.data.scan import scan_folder


def views_per_decode(settings: Precompute, backends: Sequence[str], work: Path) -> list[Pairs]:
    """Views per second: all views of an image in one request, against as many passes, each of another view.

    `work` takes FFCV's copy, the original JPEGs in one file.
    """
    index, _ = scan_folder(settings.data)
    return [_measure(name, source_of(name, index, work, WHOLE), settings) for name in backends]


def _measure(name: str, source: Source, settings: Precompute) -> Pairs:
    threads = settings.threads or usable_cpus()
    options = BackendOptions(resolution=settings.resolution, num_threads=threads, max_batch=settings.batch)
    shared, passes = shared_rows(source.index, settings), rows_of_passes(source.index, settings)
    count = sum(map(len, shared))
    with closing(backend_of(name)(source, options)) as backend:

        def rate(requests: list[PlanRows]) -> float:
            return count / seconds_of(lambda: [None for _ in backend.stream(requests)])

        rate(shared)  # compilation, page cache
        return alternate(name, "views/s", lambda: rate(shared), lambda: rate(passes), settings.repeats)


def shared_rows(index: Index, settings: Precompute) -> list[PlanRows]:
    """Requests of whole images: all views of the first, all views of the next."""
    images = _cut(_chosen(index, settings), max(1, settings.batch // settings.views))
    views = np.arange(settings.views)
    return [plan_rows(index, np.repeat(at, settings.views), np.tile(views, len(at))) for at in images]


def rows_of_passes(index: Index, settings: Precompute) -> list[PlanRows]:
    """The same rows: one view of every image, then another."""
    images = _cut(_chosen(index, settings), settings.batch)
    return [plan_rows(index, at, np.full(len(at), view)) for view in range(settings.views) for at in images]


def _chosen(index: Index, settings: Precompute) -> np.ndarray:
    """Positions of the images, spread evenly, in the order of the files, as precompute reads them."""
    return np.unique(np.linspace(0, len(index) - 1, settings.images).astype(np.int64))


def _cut(positions: np.ndarray, size: int) -> list[np.ndarray]:
    return np.split(positions, np.arange(size, len(positions), size))
