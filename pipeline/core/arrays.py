"""One HDF5 file of contiguous datasets that any number of processes map without the HDF5 lock.

Contiguous layout with early allocation puts every dataset at one fixed offset (`Dataset.id.get_offset`), so that a
reader needs HDF5 for the header only; rows then come from the page cache, shared by all ranks of a machine, safe over
threads and fork. The file stays an ordinary HDF5 file for h5dump and friends.
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.core.atomic import publish
from pipeline.core.errors import ArraysError
from pipeline.core.hdf5 import HDF5_VERSION, read_text, write_text

_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class MappedArrays:
    """Read-only arrays of one file, and the JSON object that was written with them."""

    arrays: dict[str, np.ndarray]
    header: dict[str, Any]


def write_arrays(path: Path, arrays: dict[str, np.ndarray], header: dict[str, Any]) -> None:
    """Write `arrays` as contiguous, checksummed datasets of a new file at `path`, atomically."""
    with publish(path) as temporary:
        with h5py.File(temporary, "w", libver=HDF5_VERSION, locking=False) as file:
            write_text(file, "header", json.dumps(header, sort_keys=True))
            for name, array in arrays.items():
                _write_dataset(file, name, np.ascontiguousarray(array))


def map_arrays(path: Path, *, verify: bool) -> MappedArrays:
    """Map every dataset of `path`; `verify` reads the bytes once and compares their CRC-32.

    Raises:
        ArraysError: not an HDF5 file of ours, truncated, or (with `verify`) damaged.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            header = json.loads(read_text(file, "header"))
            layout = {name: _locate(file[name]) for name in file}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ArraysError(f"{path} is not a readable file of arrays ({error}); write it again") from error
    size_bytes = path.stat().st_size
    for name, place in layout.items():
        if place.offset + place.num_bytes > size_bytes:
            raise ArraysError(f"{path} is truncated: dataset '{name}' ends beyond the file; write it again")
        if verify and _crc_of_range(path, place) != place.crc:
            raise ArraysError(f"{path} is damaged: dataset '{name}' fails its CRC-32; write it again")
    return MappedArrays({name: _map(path, place) for name, place in layout.items()}, header)


@dataclass(frozen=True)
class _Place:
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    crc: int

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def _write_dataset(file: h5py.File, name: str, array: np.ndarray) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_obj_track_times(False)  # the same arrays are the same bytes, whenever they are written
    dataset_type = h5py.h5t.py_create(array.dtype, logical=True)
    identifier = h5py.h5d.create(
        file.id, name.encode(), dataset_type, h5py.h5s.create_simple(array.shape), dcpl=properties
    )
    dataset = h5py.Dataset(identifier)
    if array.size:
        dataset[...] = array
    dataset.attrs["crc32"] = zlib.crc32(array.reshape(-1).view(np.uint8).data)


def _locate(dataset: h5py.Dataset | h5py.Group) -> _Place:
    if not isinstance(dataset, h5py.Dataset):
        raise TypeError(f"'{dataset.name}' is a group, not a dataset")
    offset = dataset.id.get_offset()
    if offset is None and dataset.size:
        raise ValueError(f"dataset '{dataset.name}' is not contiguous")
    return _Place(offset or 0, dataset.shape, dataset.dtype, int(dataset.attrs["crc32"]))


def _crc_of_range(path: Path, place: _Place) -> int:
    crc, left = 0, place.num_bytes
    with path.open("rb") as file:
        file.seek(place.offset)
        while left:
            block = file.read(min(left, _BLOCK_BYTES))
            if not block:
                break
            crc, left = zlib.crc32(block, crc), left - len(block)
    return crc


def _map(path: Path, place: _Place) -> np.ndarray:
    if place.num_bytes == 0:
        return np.zeros(place.shape, place.dtype)
    return np.memmap(path, place.dtype, mode="r", offset=place.offset, shape=place.shape)
