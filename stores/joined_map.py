"""One array over the same dataset of many shards, by mapping them one behind the other."""

import ctypes
import mmap
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stores.shard_file import ALIGNMENT_BYTES, Place

_MAP_FIXED, _PROT_NONE = 0x10, 0  # of Linux and macOS; Python's mmap does not name them
_FAILED = ctypes.c_void_p(-1).value


def can_join(num_rows: int, shard_rows: int, row_bytes: int) -> bool:
    """Whether a view's shards can follow each other in memory: whole pages each, or only one of them."""
    if num_rows <= shard_rows:
        return True
    return ALIGNMENT_BYTES % mmap.PAGESIZE == 0 and shard_rows * row_bytes % mmap.PAGESIZE == 0


def map_joined(parts: Sequence[tuple[Path, Place]]) -> np.ndarray:
    """(rows of all parts, ...) read-only; a gather over all shards is then one `np.take`, twice as fast as one a shard.

    Raises:
        ValueError: parts that are not whole pages.
        OSError: with the file's name.
    """
    path, first = parts[0]
    if len(parts) == 1:
        return np.memmap(path, first.dtype, mode="r", offset=first.offset, shape=first.shape)
    sizes = [place.end - place.offset for _, place in parts]
    if any(place.offset % mmap.PAGESIZE for _, place in parts) or any(size % mmap.PAGESIZE for size in sizes[:-1]):
        raise ValueError(f"datasets that do not fill whole pages of {mmap.PAGESIZE} bytes cannot be joined: {path}")
    memory = _Range(sum(sizes), (sum(place.shape[0] for _, place in parts), *first.shape[1:]), first.dtype)
    done = 0
    for (file, place), size in zip(parts, sizes, strict=True):
        memory.lay(file, place.offset, done, size)
        done += size
    return np.asarray(memory)


class _Range:
    """Addresses that are kept for files to be mapped into; given back when no array uses them any more."""

    def __init__(self, num_bytes: int, shape: tuple[int, ...], dtype: str) -> None:
        self._start = _map(0, num_bytes, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        weakref.finalize(self, _libc.munmap, self._start, num_bytes)
        self._shape, self._dtype = shape, dtype

    @property
    def __array_interface__(self) -> dict[str, Any]:
        data = (self._start, True)
        return {"version": 3, "shape": self._shape, "typestr": self._dtype, "data": data}

    def lay(self, path: Path, offset: int, at: int, num_bytes: int) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            _map(self._start + at, num_bytes, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_FIXED, descriptor, offset)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        finally:
            os.close(descriptor)


def _load_libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


_libc = _load_libc()


def _map(address: int, num_bytes: int, protection: int, flags: int, descriptor: int, offset: int) -> int:
    found = _libc.mmap(address, num_bytes, protection, flags, descriptor, offset)
    if found == _FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(found)
