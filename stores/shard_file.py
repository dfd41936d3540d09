"""The file of a shard before it has rows: HDF5 says where they belong, and writes none of them."""

import io
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.core.hdf5 import HDF5_VERSION, write_text
from stores.codec import Field
from stores.codec_registry import codec_from_json
from stores.layout import ShardKey
from stores.manifest import STORE_VERSION, Manifest

SHARD_KIND = "reflux store shard"
LABEL, PLAN_CRC, ROW_CRC = Field("label", "<i4", ()), Field("plan_crc", "<u4", ()), Field("row_crc", "<u4", ())
ALIGNMENT_BYTES = 4096
_PAGE_BYTES = 4096


@dataclass(frozen=True)
class Place:
    """Where a dataset's bytes lie in a shard: `offset` bytes from its beginning, rows one after the other."""

    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    @property
    def end(self) -> int:
        """The first byte behind the dataset."""
        return self.offset + self.shape[0] * self.row_bytes


def payload_fields(manifest: Manifest) -> tuple[Field, ...]:
    """The datasets of all codecs of a store, in their order in the row checksum.

    Raises:
        StoreError: a codec that this program does not know.
    """
    return tuple(field for codec in manifest.codecs for field in codec_from_json(codec).fields)


def shard_columns(manifest: Manifest) -> tuple[Field, ...]:
    """The datasets of a shard, in their order in the file."""
    return (*payload_fields(manifest), LABEL, PLAN_CRC, ROW_CRC)


def create_shard_file(path: Path, key: ShardKey, manifest: Manifest, *, made_with: dict[str, Any]) -> dict[str, Place]:
    """Make a shard's file without its rows (space that nothing was written to: zeros) and say where they belong."""
    header = {
        "kind": SHARD_KIND,
        "version": STORE_VERSION,
        "store": manifest.fingerprint(),
        "view": key.view,
        "start": key.start,
        "stop": key.stop,
        "made_with": made_with,
    }
    aligned = {"alignment_threshold": 1, "alignment_interval": ALIGNMENT_BYTES}
    image, rows = _SparseImage(), key.stop - key.start
    with h5py.File(image, "w", libver=HDF5_VERSION, locking=False, **aligned) as file:
        write_text(file, "header", json.dumps(header, sort_keys=True))
        write_text(file, "manifest", manifest.to_text())
        places = {field.name: _create_dataset(file, field, rows) for field in shard_columns(manifest)}
    image.save(path)
    return places


def _create_dataset(file: h5py.File, field: Field, rows: int) -> Place:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # the same rows are the same bytes, whenever they are written
    kind = h5py.h5t.py_create(np.dtype(field.dtype), logical=True)
    space = h5py.h5s.create_simple((rows, *field.shape))
    identifier = h5py.h5d.create(file.id, field.name.encode(), kind, space, dcpl=properties)
    return Place(identifier.get_offset(), (rows, *field.shape), field.dtype)


class _SparseImage(io.RawIOBase):
    """A file in memory of which only the pages exist that were written to.

    HDF5 cannot close a file whose disk is full; a plain write says in one word what is wrong.
    """

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._size = 0
        self._at = 0

    def save(self, path: Path) -> None:
        """Write the pages to a new, sparse file."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            for number, page in self._pages.items():
                os.pwrite(descriptor, page, number * _PAGE_BYTES)
            os.ftruncate(descriptor, self._size)
        finally:
            os.close(descriptor)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def truncate(self, size: int | None = None) -> int:
        self._size = self._at if size is None else size
        return self._size

    def readinto(self, buffer: Any) -> int:
        data = memoryview(buffer).cast("B")
        for place, page, within in self._pieces(len(data)):
            data[place] = page[within]
        return len(data)

    def write(self, buffer: Any) -> int:
        data = memoryview(buffer).cast("B")
        for place, page, within in self._pieces(len(data)):
            page[within] = data[place]
        self._size = max(self._size, self._at + len(data))
        return len(data)

    def _pieces(self, num_bytes: int) -> Iterator[tuple[slice, bytearray, slice]]:
        """Of a buffer at the current position: its parts, and the page and the place in it where each belongs."""
        for number in range(self._at // _PAGE_BYTES, (self._at + num_bytes - 1) // _PAGE_BYTES + 1):
            first = number * _PAGE_BYTES
            start, stop = max(first, self._at), min(first + _PAGE_BYTES, self._at + num_bytes)
            page = self._pages.setdefault(number, bytearray(_PAGE_BYTES))
            yield slice(start - self._at, stop - self._at), page, slice(start - first, stop - first)
