"""What keeps bad files from a decoder that would not survive them: each is looked at before it is handed over.

A file that is as long as the index says was readable when it was indexed. One that is not is shown to the reference
decoder, once, and kept away where that refuses it.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.core.errors import BadImageError
from pipeline.data.backends.torchvision import read_rgb
from pipeline.data.index import Index
from pipeline.data.plan import PlanRows

_FILES_PER_TASK = 64


@dataclass(frozen=True)
class Examined:
    """A request that has been looked at.

    Attributes:
        rows: the plan's.
        good: positions of the rows that a decoder may have.
        paths: of all rows.
        errors: why a decoder does not get the others, by position.
    """

    rows: PlanRows
    good: np.ndarray
    paths: list[bytes]
    errors: dict[int, BadImageError]


class Examiner:
    """Finds the files that have changed since they were indexed, and among them the bad ones."""

    def __init__(self, index: Index, num_threads: int) -> None:
        self._index = index
        self._root = os.fsencode(index.root.absolute()) + b"/"
        self._pool = ThreadPoolExecutor(num_threads, "stat")  # on a network each size is a round trip
        self._changed_but_good: set[int] = set()

    def examine(self, rows: PlanRows) -> Examined:
        """Sort the rows into those for a decoder and those that cannot be read. About 2 us a row."""
        paths = [self._root + name for name in self._index.names_of(rows.ids)]
        parts = [paths[first : first + _FILES_PER_TASK] for first in range(0, len(paths), _FILES_PER_TASK)]
        sizes = np.concatenate(list(self._pool.map(_sizes_of, parts)))
        expected = self._index.sizes[self._index.rows_of(rows.ids)]
        errors = {}
        for position in np.flatnonzero(sizes != expected).tolist():
            error = self._look_at(int(rows.ids[position]))
            if error is not None:
                errors[position] = error
        good = np.setdiff1d(np.arange(len(rows)), list(errors))
        return Examined(rows, good, paths, errors)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _look_at(self, sample_id: int) -> BadImageError | None:
        if sample_id in self._changed_but_good:
            return None
        error = reference_error(self._index, sample_id)
        if error is None:
            self._changed_but_good.add(sample_id)
        return error


def _sizes_of(paths: list[bytes]) -> list[int]:
    return [_size_of(path) for path in paths]


def _size_of(path: bytes) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def reference_error(index: Index, sample_id: int) -> BadImageError | None:
    """What the reference decoder says of an image that it refuses; None where it reads it."""
    try:
        read_rgb(index, sample_id)
    except BadImageError as error:
        return error
    return None
