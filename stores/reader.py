"""Rows of a store by (view, sample id), into the caller's memory, without HDF5 and its lock."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.core.errors import StoreError, StoreRowError
from stores.checksum import row_crcs
from stores.codec import Codec, Field
from stores.codec_registry import codec_from_json
from stores.file_system import StoreIO, is_local
from stores.index_file import list_shards, read_manifest
from stores.joined_map import can_join
from stores.layout import ShardKey, shard_keys, view_folder
from stores.manifest import Manifest
from stores.shard import check_shard, read_shard
from stores.shard_file import LABEL, PLAN_CRC, ROW_CRC, shard_columns
from stores.staging import stage_shards, staged_store, unstage_shards, warm_shards
from stores.view_rows import MappedView, PreadView, ViewRows

_OPEN_VIEWS = 2  # the one that is read and the next: a view in many shards needs many maps or descriptors
_SHOWN_IDS = 8


def open_store(store: Path, *, io: StoreIO = "auto", check_rows: bool = True) -> "StoreReader":
    """Open a store for reading; costs the manifest alone, whatever the number of views and rows.

    Args:
        store: its folder.
        io: how rows are read: "mmap", "pread", or "auto": mmap from local disks, pread from network file systems.
        check_rows: whether every row's checksum is compared, which takes under a microsecond a row of 2 KB.

    Raises:
        StoreError: no store, one that this version cannot read, or one that cannot be mapped with io="mmap".
    """
    return StoreReader(store, io=io, check_rows=check_rows)


class StoreReader:
    """See `open_store`. Threads may share it, forked processes may go on with it, pickled it is opened again.

    Attributes:
        path: the store's folder.
        manifest: what it holds.
        codecs: how rows are encoded.
        fields: the codecs' fields by name, in the order of the row checksum.
        io: how rows are read.
    """

    def __init__(self, store: Path, *, io: StoreIO, check_rows: bool) -> None:
        self.path = store
        self.manifest: Manifest = read_manifest(store)
        self.codecs: tuple[Codec, ...] = tuple(codec_from_json(codec) for codec in self.manifest.codecs)
        self.fields: dict[str, Field] = {field.name: field for codec in self.codecs for field in codec.fields}
        self._wanted_io, self._check_rows = io, check_rows
        self.io = self._choose_io(store)
        self._staged: dict[int, Path] = {}
        self._open: dict[
            int, ViewRows
        ] = {}  # no lock, which a fork could take along: two threads may open a view twice

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self._wanted_io, self._check_rows, self._staged)

    def complete_views(self) -> list[int]:
        """Views whose shards are all there now, by their names."""
        present = set(list_shards(self.path))
        return [view for view in sorted({key.view for key in present}) if present.issuperset(self._keys(view))]

    def missing(self, view: int) -> list[ShardKey]:
        """Shards of a view that are not there now, by their names."""
        folder = view_folder(self.path, view)
        present = set(os.listdir(folder)) if folder.is_dir() else set()
        return [key for key in self._keys(view) if key.path(self.path).name not in present]

    def open_view(self, view: int) -> None:
        """Read and check the headers of all shards of a view now, which `gather` does at a view's first row.

        Raises:
            StoreError: shards are missing, damaged, or of another store; names the file.
        """
        self._rows_of(view)

    def gather(
        self,
        view: int,
        ids: np.ndarray,
        *,
        fields: Sequence[str] | None = None,
        out: dict[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Rows of one view.

        Args:
            view: their view.
            ids: (B,) sample ids, in any order, also repeated.
            fields: names of the fields to read; None for all. A checksum needs all of them, so that leaving some out
                saves memory rather than time while rows are checked.
            out: arrays to read into, C-contiguous, by name; others are made.

        Returns:
            "label", "plan_crc" and every field asked for, each (B, ...) in the order of `ids`.

        Raises:
            StoreRowError: rows whose checksum does not fit, with view and ids.
            StoreError: the view is not complete, a file is damaged or was truncated, a field is not kept.
            IndexError: an id that the data set does not have.
            ValueError: an array in `out` of another type or shape.
        """
        wanted = self._known(self.fields if fields is None else fields)
        ids = self._checked_ids(ids)
        rows = self._rows_of(view)
        columns = {field.name: _buffer(field, len(ids), out or {}) for field in (*wanted, LABEL, PLAN_CRC)}
        for name, array in columns.items():
            rows.read(name, ids, array)
        if self._check_rows:
            self._check(view, ids, rows, columns)
        return columns

    def warm(self, view: int) -> None:
        """Read a view's files once, in their order, so that its rows come from the page cache after that.

        A cold row costs a seek of the disk or a round trip of the network; a whole view this way, seconds. Worth it
        in a thread of its own, one view ahead, where memory has room for two views.

        Raises:
            StoreError: shards are missing, or cannot be read.
        """
        self.open_view(view)
        store = self._staged.get(view, self.path)
        try:
            warm_shards([key.path(store) for key in self._keys(view)])
        except OSError as error:
            raise StoreError(f"cannot read view {view} of {store}: {error}") from error

    def stage(self, view: int, folder: Path) -> None:
        """Copy a complete view to fast local storage and read it from there; processes that share `folder` copy once.

        Raises:
            StoreError: shards are missing or damaged.
            OSError: no space or no permission in `folder`.
        """
        store = staged_store(folder, self.manifest)
        self._require_complete(view)
        stage_shards(self.path, store, self._keys(view))
        self._staged[view] = store
        self._open.pop(view, None)
        self.open_view(view)

    def unstage(self, view: int, folder: Path) -> None:
        """Remove a staged view. Processes that have it open read on; whoever opens it next reads the store itself."""
        self._staged.pop(view, None)
        self._open.pop(view, None)
        unstage_shards(staged_store(folder, self.manifest), self._keys(view))

    def close(self) -> None:
        """Let go of all files; rows that are asked for later open them again."""
        self._open.clear()

    def _keys(self, view: int) -> list[ShardKey]:
        return shard_keys(view, self.manifest.num_rows, self.manifest.shard_rows)

    def _rows_of(self, view: int) -> ViewRows:
        rows = self._open.get(view)
        if rows is None:
            rows = self._load(view)
            self._open[view] = rows
            for old in list(self._open)[:-_OPEN_VIEWS]:
                self._open.pop(old, None)
        return rows

    def _load(self, view: int) -> ViewRows:
        if view in self._staged:
            try:
                return self._open_at(self._staged[view], view)
            except StoreError:  # removed by another process of this machine
                del self._staged[view]
        self._require_complete(view)
        return self._open_at(self.path, view)

    def _open_at(self, store: Path, view: int) -> ViewRows:
        shards = [read_shard(key.path(store)) for key in self._keys(view)]
        for shard in shards:
            check_shard(shard, self.manifest)
        try:
            return MappedView(shards) if self._choose_io(store) == "mmap" else PreadView(shards)
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot open view {view} of {store}: {error}") from error

    def _require_complete(self, view: int) -> None:
        missing = self.missing(view)
        if missing:
            raise StoreError(
                f"a view is read whole, but view {view} of {self.path} lacks {len(missing)} of "
                f"{len(self._keys(view))} shards: {missing[0].path(self.path)} is the first.\n"
                "Run the store's precompute command again, which makes what is missing."
            )

    def _choose_io(self, store: Path) -> Literal["mmap", "pread"]:
        if self._wanted_io == "pread":
            return "pread"
        rows, columns = self.manifest.shard_rows, shard_columns(self.manifest)
        odd = [field.name for field in columns if not can_join(self.manifest.num_rows, rows, field.row_bytes)]
        if self._wanted_io == "mmap" and odd:
            raise StoreError(
                f"{self.path} cannot be mapped: {rows} rows of '{odd[0]}' are not whole pages of memory, as a multiple "
                'of 4096 rows a shard would be. Read it with io="pread" or "auto".'
            )
        return "mmap" if self._wanted_io == "mmap" or (not odd and is_local(store)) else "pread"

    def _known(self, names: Sequence[str] | dict[str, Field]) -> list[Field]:
        unknown = [name for name in names if name not in self.fields]
        if unknown:
            raise StoreError(f"{self.path} keeps {', '.join(self.fields)}, not '{unknown[0]}'")
        return [self.fields[name] for name in names]

    def _checked_ids(self, ids: np.ndarray) -> np.ndarray:
        ids = np.ascontiguousarray(ids, np.int64)
        if len(ids) and int(ids.view(np.uint64).max()) >= self.manifest.num_rows:  # negative ones are huge
            wrong = ids[(ids < 0) | (ids >= self.manifest.num_rows)][:_SHOWN_IDS].tolist()
            raise IndexError(
                f"sample ids {wrong} are not in {self.path}, which has {self.manifest.num_rows} rows a view"
            )
        return ids

    def _check(self, view: int, ids: np.ndarray, rows: ViewRows, columns: dict[str, np.ndarray]) -> None:
        crcs = _read_new(rows, ROW_CRC, ids)
        payloads = [
            columns[name] if name in columns else _read_new(rows, field, ids) for name, field in self.fields.items()
        ]
        wrong = np.flatnonzero(row_crcs(columns[LABEL.name], columns[PLAN_CRC.name], payloads) != crcs)
        if len(wrong):
            bad = tuple(ids[wrong].tolist())
            raise StoreRowError(
                f"{self.path}: {len(bad)} row(s) of view {view} are not what was written (their CRC-32 differs): "
                f"sample ids {list(bad[:_SHOWN_IDS])}.\n"
                f"Find all with `python -m stores verify {self.path}`; remove their shards, and precompute them again.",
                view=view,
                ids=bad,
            )


def _reopen(store: Path, io: StoreIO, check_rows: bool, staged: dict[int, Path]) -> StoreReader:
    reader = open_store(store, io=io, check_rows=check_rows)
    reader._staged.update(staged)
    return reader


def _read_new(rows: ViewRows, field: Field, ids: np.ndarray) -> np.ndarray:
    array = _buffer(field, len(ids), {})
    rows.read(field.name, ids, array)
    return array


def _buffer(field: Field, num: int, given: dict[str, np.ndarray]) -> np.ndarray:
    array = given.get(field.name)
    shape = (num, *field.shape)
    if array is None:
        return np.empty(shape, field.dtype)
    if array.shape != shape or array.dtype != np.dtype(field.dtype) or not array.flags.c_contiguous:
        raise ValueError(
            f"'{field.name}' is read into memory of its own form, C-contiguous:\n"
            f"  store: {shape} {field.dtype}\n  given: {array.shape} {array.dtype.str}"
        )
    return array
