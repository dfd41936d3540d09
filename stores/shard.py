"""One shard: an ordinary HDF5 file of contiguous, page-aligned datasets, written once and never changed.

Nothing of a shard is visible before all of its rows are on the disk.
"""

import json
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.core.atomic import fsync_path, rename_if_new
from pipeline.core.errors import StoreError
from pipeline.core.hdf5 import read_text
from stores.checksum import row_crcs
from stores.layout import ShardKey, parse_shard
from stores.manifest import STORE_VERSION, Manifest
from stores.shard_file import (
    LABEL,
    PLAN_CRC,
    ROW_CRC,
    SHARD_KIND,
    Place,
    create_shard_file,
    payload_fields,
    shard_columns,
)

_FLUSH_BYTES = 1 << 24
_REMEDY = "remove it, and precompute it again"


class ShardWriter:
    """Writes the rows of one shard under a temporary name; `seal` makes them a shard.

    A context manager: leaving the block without `seal` removes the file. Rows may come in any order. The disk
    begins with its work before the last row has come.

    Args:
        store: the store's folder.
        key: which rows of which view.
        manifest: the one that stands in the store.
        made_with: software and device of this job, recorded.

    Raises:
        OSError: with the file's name: no space, no permission.
    """

    def __init__(self, store: Path, key: ShardKey, manifest: Manifest, *, made_with: dict[str, Any]) -> None:
        self.path = key.path(store)
        self._payload = payload_fields(manifest)
        self._columns = (*self._payload, LABEL, PLAN_CRC)
        self._written = np.zeros(key.stop - key.start, bool)
        # one number a row each: written at the end, since a system call costs more than they do
        numbers = (LABEL, PLAN_CRC, ROW_CRC)
        self._numbers = {field.name: np.empty(len(self._written), field.dtype) for field in numbers}
        self._temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}.tmp")
        self._descriptor = -1
        self._thread, self._flush, self._unflushed_bytes = ThreadPoolExecutor(1, "shard-flush"), _done(), 0
        with self._named_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._named_errors():
                self._places = create_shard_file(self._temporary, key, manifest, made_with=made_with)
                self._descriptor = os.open(self._temporary, os.O_WRONLY)
        except BaseException:
            self.drop()
            raise

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def write(self, start: int, columns: dict[str, np.ndarray]) -> None:
        """Write rows [start, start + n) of the shard: every field, label and plan_crc as (n, ...) arrays.

        Raises:
            ValueError: columns missing, too many, of another type or shape, or rows outside the shard.
            OSError: with the file's name.
        """
        num = self._check(start, columns)
        payload = [columns[field.name] for field in self._payload]
        rows = slice(start, start + num)
        for field in (LABEL, PLAN_CRC):
            self._numbers[field.name][rows] = columns[field.name]
        self._numbers[ROW_CRC.name][rows] = row_crcs(columns[LABEL.name], columns[PLAN_CRC.name], payload)
        with self._named_errors():
            for field, array in zip(self._payload, payload, strict=True):
                self._write_column(start, field.name, array)
            self._begin_flush()
        self._written[rows] = True

    def seal(self) -> None:
        """Make the rows durable and visible. A shard that is already there stays; this one is dropped.

        Raises:
            ValueError: rows were not written.
            OSError: with the file's name.
        """
        missing = np.flatnonzero(~self._written)
        if len(missing):
            raise ValueError(f"{self.path}: {len(missing)} rows were not written, the first is row {missing[0]}")
        with self._named_errors():
            for name, column in self._numbers.items():
                self._write_column(0, name, column)
            self._flush.result()
            os.fsync(self._descriptor)
            rename_if_new(self._temporary, self.path)
            fsync_path(self.path.parent)
        self.drop()

    def drop(self) -> None:
        """Close and remove the temporary file; what is sealed stays."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._temporary.unlink(missing_ok=True)

    def _write_column(self, start: int, name: str, array: np.ndarray) -> None:
        place = self._places[name]
        _write_all(self._descriptor, array, place.offset + start * place.row_bytes)
        self._unflushed_bytes += array.nbytes

    def _begin_flush(self) -> None:
        if self._unflushed_bytes >= _FLUSH_BYTES and self._flush.done():
            self._flush.result()  # the system tells of a failed write once only
            self._flush, self._unflushed_bytes = self._thread.submit(os.fdatasync, self._descriptor), 0

    def _check(self, start: int, columns: dict[str, np.ndarray]) -> int:
        num, wanted = len(columns.get(LABEL.name, ())), {field.name for field in self._columns}
        if set(columns) != wanted:
            raise ValueError(f"a shard's columns are {sorted(wanted)}, got {sorted(columns)}")
        for field in self._columns:
            array = columns[field.name]
            if array.shape != (num, *field.shape) or array.dtype != np.dtype(field.dtype):
                raise ValueError(
                    f"column '{field.name}' must be what the store keeps:\n"
                    f"  store: {(num, *field.shape)} {field.dtype}\n  given: {array.shape} {array.dtype.str}"
                )
        if start < 0 or start + num > len(self._written):
            raise ValueError(f"rows {start} to {start + num} lie outside a shard of {len(self._written)} rows")
        return num

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """An error of a file descriptor does not say which file."""
        try:
            yield
        except OSError as error:
            if error.errno is None or error.filename is not None:
                raise
            raise OSError(error.errno, os.strerror(error.errno), str(self.path)) from error


@dataclass(frozen=True)
class ShardFile:
    """What a shard says of itself.

    Attributes:
        path: its file.
        key: its view and rows.
        store: fingerprint of the manifest of the store that it belongs to.
        manifest_text: that manifest.
        header: all of its header.
        places: dataset name to place, row_crc among them.
    """

    path: Path
    key: ShardKey
    store: str
    manifest_text: str
    header: dict[str, Any]
    places: dict[str, Place]


def read_shard(path: Path) -> ShardFile:
    """Read a shard's header and the places of its datasets; the rows are not looked at.

    Raises:
        StoreError: not a shard, truncated, of another version, not what its name says, or with datasets that
            are not plain contiguous bytes of this very file.
    """
    key = parse_shard(path)
    if key is None:
        raise StoreError(f"{path} is not named as a shard is, .../views/0007/rows-0000000-0065536.h5")
    try:
        with h5py.File(path, "r", locking=False) as file:
            header, manifest_text = json.loads(read_text(file, "header")), read_text(file, "manifest")
            places = {name: _place_of(file, name) for name in file}
    except StoreError as error:
        raise StoreError(f"{path}: {error}; {_REMEDY}") from error
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing; run the store's precompute command again") from error
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise StoreError(f"{path} is not a readable shard ({error}); {_REMEDY}") from error
    _check_header(path, key, header, manifest_text)
    _check_places(path, key, places)
    return ShardFile(path, key, header["store"], manifest_text, header, places)


def check_shard(shard: ShardFile, manifest: Manifest) -> None:
    """Compare a shard with the store that it lies in.

    Raises:
        StoreError: of another store, or with other datasets than the manifest's codecs have; both are shown.
    """
    wanted = manifest.fingerprint()
    if shard.store != wanted:
        raise StoreError(
            f"{shard.path} is a shard of another store; move it out, and precompute its rows again.\n"
            f"  store: {wanted}\n  shard: {shard.store}"
        )
    rows = shard.key.stop - shard.key.start
    expected = {field.name: ((rows, *field.shape), field.dtype) for field in shard_columns(manifest)}
    found = {name: (place.shape, place.dtype) for name, place in shard.places.items()}
    if found != expected:
        raise StoreError(
            f"{shard.path} has other datasets than the store's codecs; {_REMEDY}.\n"
            f"  store: {expected}\n  shard: {found}"
        )


def _done() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


def _write_all(descriptor: int, array: np.ndarray, offset: int) -> None:
    data = memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


def _place_of(file: h5py.File, name: str) -> Place:
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise StoreError(f"'{name}' is a link to something else, which shards must not have")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise StoreError(f"'{name}' is not a dataset")
    properties = dataset.id.get_create_plist()
    if properties.get_layout() != h5py.h5d.CONTIGUOUS or properties.get_external_count():
        raise StoreError(f"dataset '{name}' is not contiguous bytes of this file")
    offset = dataset.id.get_offset()
    if offset is None:
        raise StoreError(f"dataset '{name}' has no bytes in this file")
    return Place(offset, dataset.shape, dataset.dtype.str)


def _check_header(path: Path, key: ShardKey, header: Any, manifest_text: str) -> None:
    if not isinstance(header, dict) or header.get("kind") != SHARD_KIND:
        raise StoreError(f"{path} is an HDF5 file, but not a shard of a store; move it out")
    if header.get("version") != STORE_VERSION:
        raise StoreError(
            f"{path} has store format version {header.get('version')}, this program reads {STORE_VERSION}: "
            "update Reflux"
        )
    said = tuple(header.get(name) for name in ("view", "start", "stop"))
    if said != (key.view, key.start, key.stop):
        raise StoreError(
            f"{path} holds other rows than its name says: it was renamed, move it back.\n"
            f"  name:   view {key.view}, rows {key.start} to {key.stop}\n"
            f"  header: view {said[0]}, rows {said[1]} to {said[2]}"
        )
    if Manifest.from_text(manifest_text, str(path)).fingerprint() != header.get("store"):
        raise StoreError(f"{path}: its manifest does not have the fingerprint in its header; {_REMEDY}")


def _check_places(path: Path, key: ShardKey, places: dict[str, Place]) -> None:
    size_bytes, rows = path.stat().st_size, key.stop - key.start
    for name, place in places.items():
        if place.shape[:1] != (rows,):
            raise StoreError(f"{path}: dataset '{name}' has shape {place.shape}, its name says {rows} rows")
        if place.end > size_bytes:
            raise StoreError(
                f"{path} is truncated: dataset '{name}' ends at byte {place.end}, the file at {size_bytes}; {_REMEDY}"
            )
