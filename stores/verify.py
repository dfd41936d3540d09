"""Everything that can be checked of a store without the data set and the teacher."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.core.errors import StoreError
from stores.checksum import row_crcs
from stores.codec import Field
from stores.index_file import list_shards, read_manifest
from stores.layout import ShardKey, shard_keys
from stores.manifest import Manifest
from stores.problems import OnProgress, Problem
from stores.shard import ShardFile, check_shard, read_shard
from stores.shard_file import LABEL, PLAN_CRC, ROW_CRC, Place, payload_fields
from stores.verify_index import check_head, check_index
from stores.verify_tree import check_presence, check_tree
from stores.view_rows import OpenFile

_BLOCK_BYTES = 1 << 24


def verify_store(store: Path, *, on_progress: OnProgress) -> list[Problem]:
    """Compare every row with its checksum and every file with the manifest; reads the whole store once.

    Args:
        store: its folder.
        on_progress: called with (rows done, rows in all).

    Returns:
        What is wrong, and notes on what is not damage; nothing is changed.

    Raises:
        StoreError: no store, one of a newer format version, or a folder that cannot be read.
    """
    found = list_shards(store)
    manifest = _trusted_manifest(store, found)
    try:
        problems = check_tree(store)
    except OSError as error:
        raise StoreError(f"cannot read {error.filename or store}: {error.strerror}") from error
    problems += check_presence(store, manifest, found)
    problems += check_index(store, manifest, found)
    problems += check_head(store, manifest)
    problems += _check_shards(store, manifest, found, on_progress)
    return problems


def _trusted_manifest(store: Path, found: list[ShardKey]) -> Manifest:
    """The manifest of the first shard that is whole: most of a store's bytes stand beside it. Else that of store.h5."""
    for key in found:
        try:
            return Manifest.from_text(read_shard(key.path(store)).manifest_text, str(key.path(store)))
        except StoreError:
            continue
    return read_manifest(store)


def _check_shards(store: Path, manifest: Manifest, found: list[ShardKey], on_progress: OnProgress) -> Iterator[Problem]:
    fields = payload_fields(manifest)
    ranges = {(key.start, key.stop) for key in shard_keys(0, manifest.num_rows, manifest.shard_rows)}
    named = [key for key in found if (key.start, key.stop) in ranges]
    done, total = 0, sum(key.stop - key.start for key in named)
    for key in named:
        on_progress(done, total)
        yield from _check_shard(key.path(store), key, manifest, fields)
        done += key.stop - key.start
    on_progress(done, total)


def _check_shard(path: Path, key: ShardKey, manifest: Manifest, fields: tuple[Field, ...]) -> Iterator[Problem]:
    try:
        shard = read_shard(path)
        check_shard(shard, manifest)
        damaged, outside = _bad_rows(shard, fields, len(manifest.classes))
    except (StoreError, OSError) as error:
        yield Problem(path, str(error).removeprefix(f"{path}: ").removeprefix(f"{path} "), view=key.view)
        return
    if len(damaged):
        message = "rows are not what was written (row_crc); remove the file, and precompute it again"
        yield Problem(path, message, view=key.view, ids=tuple((key.start + damaged).tolist()))
    if len(outside):
        message = f"labels are none of the {len(manifest.classes):,} classes; remove the file, and precompute it again"
        yield Problem(path, message, view=key.view, ids=tuple((key.start + outside).tolist()))


def _bad_rows(shard: ShardFile, fields: tuple[Field, ...], num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the shard that fail their checksum, and rows that pass it with a label that is no class."""
    num_rows, row_bytes = shard.key.stop - shard.key.start, sum(place.row_bytes for place in shard.places.values())
    block, damaged, outside = max(1, _BLOCK_BYTES // row_bytes), [], []
    file = OpenFile(shard.path)
    for start in range(0, num_rows, block):
        rows = range(start, min(start + block, num_rows))
        columns = {name: _read_rows(file, place, rows) for name, place in shard.places.items()}
        labels, plan_crcs = columns[LABEL.name], columns[PLAN_CRC.name]
        crcs = row_crcs(labels, plan_crcs, [columns[field.name] for field in fields])
        is_whole = crcs == columns[ROW_CRC.name]
        damaged.append(start + np.flatnonzero(~is_whole))
        outside.append(start + np.flatnonzero(is_whole & ((labels < 0) | (labels >= num_classes))))
    return np.concatenate(damaged), np.concatenate(outside)


def _read_rows(file: OpenFile, place: Place, rows: range) -> np.ndarray:
    """(rows, ...) as the bytes stand in the file."""
    found = np.empty((len(rows), *place.shape[1:]), place.dtype)
    file.read(memoryview(found.reshape(-1).view(np.uint8).data), place.offset + rows.start * place.row_bytes)
    return found
