"""Views as single arrays: HDF5 virtual datasets over the shards, with relative sources."""

import json
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np

from stores.codecs.base import Field
from stores.errors import StoreFormatError
from stores.layout import ShardKey, shard_keys
from stores.manifest import Manifest


def read_fields(store: Path, key: ShardKey, manifest: Manifest) -> tuple[Field, ...]:
    """The datasets of a shard, as fields of a row, from its header.

    Raises:
        StoreFormatError: no readable shard, one of another store, or rows that its name does not say.
    """
    path = key.path(store)
    try:
        with h5py.File(path, "r", locking=False) as file:
            header = json.loads(file.attrs["header"])
            datasets = {name: (file[name].dtype, file[name].shape) for name in file}
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise StoreFormatError(
            f"{path} is not a readable shard ({error}); remove it, and precompute it again"
        ) from error
    if header.get("store") != manifest.fingerprint():
        raise StoreFormatError(
            f"{path} is a shard of another store; move it out.\n"
            f"  store: {manifest.fingerprint()}\n  shard: {header.get('store')}"
        )
    if key not in shard_keys(key.view, manifest.num_rows, manifest.shard_rows):
        raise StoreFormatError(
            f"{path}: no shard of this store has rows {key.start} to {key.stop - 1}; move it out.\n"
            f"Shards have {manifest.shard_rows} rows each, {manifest.num_rows} in all."
        )
    if any(shape[:1] != (key.stop - key.start,) for _, shape in datasets.values()):
        raise StoreFormatError(f"{path} does not hold the rows that its name says; move it out")
    return tuple(Field(name, dtype.str, tuple(shape[1:])) for name, (dtype, shape) in datasets.items())


def write_views(file: h5py.File, manifest: Manifest, shards: dict[ShardKey, tuple[Field, ...]]) -> None:
    """Write views/<v>/<field> of (num_rows, ...), rows that no shard holds being NaN, or 0 for integers.

    Attributes of each view's group: complete (uint8, 1 where no row is missing), num_rows, rows_present.
    """
    for view, keys in groupby(sorted(shards), key=lambda key: key.view):
        present = {key: shards[key] for key in keys}
        group = file.create_group(f"views/{view}")
        rows = sum(key.stop - key.start for key in present)
        group.attrs["complete"] = np.uint8(rows == manifest.num_rows)
        group.attrs["num_rows"] = np.int64(manifest.num_rows)
        group.attrs["rows_present"] = np.int64(rows)
        for field in next(iter(present.values())):
            _write_field(group, field, manifest.num_rows, present)


def _write_field(group: h5py.Group, field: Field, num_rows: int, shards: dict[ShardKey, tuple[Field, ...]]) -> None:
    layout = h5py.VirtualLayout(shape=(num_rows, *field.shape), dtype=field.dtype)
    for key, found in shards.items():
        if field not in found:
            raise StoreFormatError(f"the shard of {key} has no dataset '{field.name}' as its neighbours have")
        shape = (key.stop - key.start, *field.shape)
        # relative to store.h5, so that a store can be moved
        source = key.path(Path()).as_posix()
        layout[key.start : key.stop] = h5py.VirtualSource(source, field.name, shape=shape, dtype=field.dtype)
    missing = np.nan if np.dtype(field.dtype).kind == "f" else 0
    group.create_virtual_dataset(field.name, layout, fillvalue=missing)
