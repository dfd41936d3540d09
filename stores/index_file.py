"""STORE/store.h5: the manifest, and every view as one array for programs that know nothing of shards.

It can be made again from the shards at any time; shards are the truth. Readers of this package take the manifest
from it and nothing else, so a store.h5 that is older than the shards is in nobody's way.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from pipeline.core.arrays import map_arrays, write_arrays
from pipeline.core.atomic import publish
from pipeline.core.errors import ArraysError, StoreError
from pipeline.core.hdf5 import HDF5_VERSION, read_text, write_text
from stores.difference import first_difference
from stores.layout import HEAD_FILE, STORE_FILE, VIEWS_FOLDER, ShardKey, parse_shard, parse_view
from stores.manifest import Manifest
from stores.virtual import check_member, write_views

Head = tuple[np.ndarray, np.ndarray]

_HEAD_KIND = "reflux teacher head"
_HEAD_VERSION = 1


def create_store(store: Path, manifest: Manifest, head: Head | None) -> Manifest:
    """Begin a store, or join one: of several jobs the first one's manifest stands.

    Args:
        store: its folder; made where it is missing.
        manifest: what this job is going to write.
        head: the teacher's classifier, weight (C, D) and bias (C,), where embeddings are kept.

    Returns:
        The manifest that stands in the store: of equal identity, `measured` and `made_with` are its first job's.

    Raises:
        StoreError: the store is another one (the first entry that differs, with both values), is damaged, or
            cannot be written.
    """
    with writing(store):
        store.mkdir(parents=True, exist_ok=True)
        if not (store / STORE_FILE).exists():
            _begin(store, manifest)
        there = read_manifest(store)
        check_same_store(store, there, manifest)
        if head is not None and read_head(store) is None:
            _write_head(store, there, head)
    return there


def read_manifest(store: Path) -> Manifest:
    """The manifest, from store.h5, or from a shard where store.h5 is missing.

    Raises:
        StoreError: no store there, unreadable, or of a newer format version.
    """
    file = store / STORE_FILE
    if _exists(file):
        return _manifest_of(file)
    keys = list_shards(store)
    if not keys:
        raise StoreError(
            f"{store} is not a store: it has neither {STORE_FILE} nor a shard in {VIEWS_FOLDER}/.\n"
            "Name the folder that `python -m precompute --store` wrote."
        )
    return _manifest_of(keys[0].path(store))


def read_head(store: Path, manifest: Manifest | None = None) -> Head | None:
    """The teacher's classifier, weight (C, D) and bias (C,) float32; None where the store keeps none.

    Args:
        store: its folder.
        manifest: the store's, where the caller has read it.

    Raises:
        StoreError: damaged, or the head of another store.
    """
    path = store / HEAD_FILE
    if not _exists(path):
        return None
    remedy = "remove it and run the store's precompute command again, which writes it"
    try:
        mapped = map_arrays(path, verify=True)
        weight, bias = mapped.arrays["weight"], mapped.arrays["bias"]
    except (ArraysError, KeyError) as error:
        raise StoreError(f"{error}\n{path} holds no readable classifier: {remedy}") from error
    wanted, found = (manifest or read_manifest(store)).fingerprint(), mapped.header.get("store")
    if mapped.header.get("kind") != _HEAD_KIND or found != wanted:
        raise StoreError(f"{path} is not this store's classifier; {remedy}.\n  store: {wanted}\n  file:  {found}")
    return weight, bias


def write_index(store: Path, manifest: Manifest | None = None) -> None:
    """Make store.h5 again from the shards, atomically; `manifest` replaces the one that stands there.

    Jobs that do this at one time end in the right file: each looks again after its rename, and the last one sees all.

    Raises:
        StoreError: no store, a shard of another one, or a folder that cannot be written.
    """
    chosen = manifest if manifest is not None else _standing_manifest(store)
    checked: set[ShardKey] = set()
    with writing(store):
        while True:
            keys, head = list_shards(store), read_head(store, chosen)
            for key in set(keys) - checked:
                check_member(store, key, chosen)
            checked.update(keys)
            with publish(store / STORE_FILE) as temporary:
                _write_store_file(temporary, chosen, keys, None if head is None else head[0].shape)
            if list_shards(store) == keys and (store / HEAD_FILE).exists() == (head is not None):
                return


def list_shards(store: Path) -> list[ShardKey]:
    """Every shard, by file names alone, sorted; names that the layout does not know are passed over.

    Raises:
        StoreError: a folder that cannot be read.
    """
    try:
        folders = [entry.path for entry in _entries(store / VIEWS_FOLDER) if parse_view(entry.name) is not None]
        paths = [Path(entry.path) for folder in folders for entry in _entries(Path(folder))]
    except OSError as error:
        raise _unreadable(Path(error.filename or store), error) from error
    keys = (parse_shard(path) for path in paths)
    return sorted(key for key in keys if key is not None)


@contextmanager
def writing(store: Path) -> Iterator[None]:
    """Turn what the operating system says while a store is written into one message.

    Raises:
        StoreError: read-only, full, no permission, and the like.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: how h5py says that a file could not be closed
        raise cannot_write(store, error) from error


def cannot_write(store: Path, error: OSError | RuntimeError) -> StoreError:
    """The error for a disk that is full, read-only or gone."""
    name = getattr(error, "filename", None)
    where = f"  file: {name}\n" if name else ""
    return StoreError(
        f"cannot write the store {store}: {_reason(error)}.\n{where}"
        "Make room or give permission, and run the same command again; sealed shards stay and are not made again."
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot read {path}: {_reason(error)}.\nGive permission, or mount what holds it.")


def _reason(error: OSError | RuntimeError) -> str:
    said = re.search(r"error message = '([^']*)'", str(error))
    if said is not None:
        return said[1]
    code = getattr(error, "errno", None)
    return os.strerror(code) if code else str(error)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _begin(store: Path, manifest: Manifest) -> None:
    """Write the first store.h5, unless another job is quicker or shards show that the store was begun before."""
    if list_shards(store):
        check_same_store(store, read_manifest(store), manifest)
        write_index(store, read_manifest(store))
        return
    with publish(store / STORE_FILE, if_new=True) as temporary:
        _write_store_file(temporary, manifest, [], None)


def check_same_store(store: Path, there: Manifest, here: Manifest) -> None:
    """Refuse to add rows to a store whose manifest, `there`, has another identity than the job's own.

    Raises:
        StoreError: the first entry that differs, with both values.
    """
    difference = first_difference(there, here)
    if difference is not None:
        raise StoreError(
            f"{store} is the store of other teacher outputs: '{difference.entry}' differs.\n"
            f"  store:    {difference.first}\n"
            f"  this job: {difference.second}\n"
            "Name another folder with --store, or give the flags that the store was begun with."
        )


def _write_head(store: Path, manifest: Manifest, head: Head) -> None:
    """Jobs of one fingerprint write the same bytes, so any of them may come first, or all."""
    weight, bias = (np.ascontiguousarray(array, "<f4") for array in head)
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise ValueError(f"a head is (C, D) and (C,), got {weight.shape} and {bias.shape}")
    header = {"kind": _HEAD_KIND, "version": _HEAD_VERSION, "store": manifest.fingerprint()}
    write_arrays(store / HEAD_FILE, {"weight": weight, "bias": bias}, header)


def _standing_manifest(store: Path) -> Manifest:
    """The manifest of a store whose store.h5 may be damaged: then a shard's."""
    try:
        return read_manifest(store)
    except StoreError:
        keys = list_shards(store)
        if not keys:
            raise
        return _manifest_of(keys[0].path(store))


def _manifest_of(path: Path) -> Manifest:
    try:
        with h5py.File(path, "r", locking=False) as file:
            text = read_text(file, "manifest")
    except PermissionError as error:
        raise _unreadable(path, error) from error
    except (OSError, KeyError, RuntimeError) as error:
        remedy = "\n`python -m stores index STORE` makes it again from the shards." if path.name == STORE_FILE else ""
        raise StoreError(f"{path} holds no readable manifest ({error}).{remedy}") from error
    return Manifest.from_text(text, str(path))


def _write_store_file(path: Path, manifest: Manifest, keys: list[ShardKey], head: tuple[int, ...] | None) -> None:
    # built in memory: HDF5 cannot close a file on a full disk, a plain write says in one word what is wrong
    with h5py.File(path, "w", libver=HDF5_VERSION, driver="core", backing_store=False) as file:
        write_text(file, "manifest", manifest.to_text())
        file.attrs["version"] = np.int64(manifest.version)
        write_text(file, "fingerprint", manifest.fingerprint())
        write_views(file, manifest, keys)
        if head is not None:
            _link_head(file, head)
        file.flush()
        image: bytes = file.id.get_file_image()
    path.write_bytes(image)


def _link_head(file: h5py.File, shape: tuple[int, ...]) -> None:
    for name, size in (("weight", shape), ("bias", shape[:1])):
        layout = h5py.VirtualLayout(shape=size, dtype="<f4")
        layout[...] = h5py.VirtualSource(HEAD_FILE, name, shape=size, dtype="<f4")
        file.create_virtual_dataset(f"head/{name}", layout, fillvalue=np.nan)
