"""The rows of one view, open for reading: two ways with one contract. Threads and forked processes share them."""

import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.core.errors import StoreError
from stores.joined_map import map_joined
from stores.shard import ShardFile
from stores.shard_file import LABEL, PLAN_CRC, ROW_CRC


class ViewRows(ABC):
    """All shards of a view, checked and open. Files stay open until nobody uses the object any more."""

    @abstractmethod
    def read(self, name: str, ids: np.ndarray, out: np.ndarray) -> None:
        """Rows `ids` (B,) int64, all of them in the view, of dataset `name` into `out` (B, ...), C-contiguous.

        Raises:
            StoreError: the file cannot be read, or was truncated while it was open (a map cannot tell: SIGBUS).
        """


class MappedView(ViewRows):
    """Rows out of the page cache, without a system call."""

    def __init__(self, shards: Sequence[ShardFile]) -> None:
        names = shards[0].places
        self._columns = {name: map_joined([(shard.path, shard.places[name]) for shard in shards]) for name in names}

    def read(self, name: str, ids: np.ndarray, out: np.ndarray) -> None:
        """See `ViewRows`."""
        np.take(self._columns[name], ids, axis=0, out=out, mode="clip")  # any other mode copies once more


class PreadView(ViewRows):
    """One read call a run of rows, straight into the caller's memory.

    The three numbers that stand beside every row are read as whole columns, once: 12 bytes of memory a row.
    """

    def __init__(self, shards: Sequence[ShardFile]) -> None:
        self._shards, self._files = shards, [OpenFile(shard.path) for shard in shards]
        self._rows = shards[0].key.stop - shards[0].key.start
        self._small: dict[str, np.ndarray] = {}

    def read(self, name: str, ids: np.ndarray, out: np.ndarray) -> None:
        """See `ViewRows`."""
        if name in (LABEL.name, PLAN_CRC.name, ROW_CRC.name):
            np.take(self._column(name), ids, out=out, mode="clip")
        else:
            self._read_runs(name, ids, out)

    def _column(self, name: str) -> np.ndarray:
        if name not in self._small:
            ids = np.arange(self._shards[-1].key.stop, dtype=np.int64)
            column = np.empty(len(ids), self._shards[0].places[name].dtype)
            self._read_runs(name, ids, column)
            self._small[name] = column
        return self._small[name]

    def _read_runs(self, name: str, ids: np.ndarray, out: np.ndarray) -> None:
        data = memoryview(out.reshape(-1).view(np.uint8).data)
        row_bytes = self._shards[0].places[name].row_bytes
        offsets = np.array([shard.places[name].offset for shard in self._shards])
        numbers = ids // self._rows
        at = offsets[numbers] + (ids - numbers * self._rows) * row_bytes
        first, stop = _runs(ids, numbers)
        for number, begin, end, offset in zip(
            numbers[first].tolist(), (first * row_bytes).tolist(), (stop * row_bytes).tolist(), at[first].tolist(),
            strict=True,
        ):  # fmt: skip
            self._files[number].read(data[begin:end], offset)


def _runs(ids: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of neighbouring rows of one shard begin and end in `ids`."""
    breaks = np.flatnonzero((np.diff(ids) != 1) | (np.diff(numbers) != 0)) + 1
    return np.concatenate(([0], breaks))[: len(ids)], np.concatenate((breaks, [len(ids)]))[: len(ids)]


class OpenFile:
    """A file of which bytes are read, by any thread; closed when nobody uses the object any more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, data: memoryview, offset: int) -> None:
        """Fill `data` with the bytes from `offset` on.

        Raises:
            StoreError: they cannot be read, or the file ends before.
        """
        try:
            count = os.preadv(self._descriptor, (data,), offset)
            while 0 < count < len(data):  # a call reads 2 GB at most
                data, offset = data[count:], offset + count
                count = os.preadv(self._descriptor, (data,), offset)
        except OSError as error:
            raise StoreError(f"cannot read {self._path}: {error.strerror}") from error
        if count < len(data):
            raise StoreError(
                f"{self._path} was truncated while it was open: it ends before byte {offset + len(data)}; "
                "remove it, and precompute it again"
            )
