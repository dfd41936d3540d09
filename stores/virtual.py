"""Views as single arrays: HDF5 virtual datasets over the shards, with relative sources."""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np

from pipeline.core.errors import StoreError
from stores.codec import Field
from stores.layout import ShardKey, shard_keys
from stores.manifest import Manifest
from stores.shard import check_shard, read_shard
from stores.shard_file import shard_columns


def check_member(store: Path, key: ShardKey, manifest: Manifest) -> None:
    """Read a shard's header and refuse what is not part of the store.

    Raises:
        StoreError: no readable shard, one of another store, or rows that no shard of this store has.
    """
    path = key.path(store)
    if key not in shard_keys(key.view, manifest.num_rows, manifest.shard_rows):
        raise StoreError(
            f"{path}: no shard of this store has rows {key.start} to {key.stop - 1}; move it out.\n"
            f"Shards have {manifest.shard_rows} rows each, {manifest.num_rows} in all."
        )
    check_shard(read_shard(path), manifest)


def write_views(file: h5py.File, manifest: Manifest, keys: Iterable[ShardKey]) -> None:
    """Write views/<v>/<field> of (num_rows, ...), rows that no shard holds being NaN, or 0 for integers.

    Attributes of each view's group: complete (uint8, 1 where no row is missing), num_rows, rows_present.
    """
    columns = shard_columns(manifest)
    for view, shards in groupby(sorted(keys), key=lambda key: key.view):
        present = list(shards)
        group = file.create_group(f"views/{view}")
        rows = sum(key.stop - key.start for key in present)
        group.attrs["complete"] = np.uint8(rows == manifest.num_rows)
        group.attrs["num_rows"] = np.int64(manifest.num_rows)
        group.attrs["rows_present"] = np.int64(rows)
        for field in columns:
            _write_field(group, field, manifest.num_rows, present)


def _write_field(group: h5py.Group, field: Field, num_rows: int, present: list[ShardKey]) -> None:
    layout = h5py.VirtualLayout(shape=(num_rows, *field.shape), dtype=field.dtype)
    for key in present:
        # relative to store.h5, so that a store can be moved
        source, shape = key.path(Path()).as_posix(), (key.stop - key.start, *field.shape)
        layout[key.start : key.stop] = h5py.VirtualSource(source, field.name, shape=shape, dtype=field.dtype)
    missing = np.nan if np.dtype(field.dtype).kind == "f" else 0
    group.create_virtual_dataset(field.name, layout, fillvalue=missing)
