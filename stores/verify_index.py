"""Whether store.h5 shows other programs the rows that the shards hold."""

from collections.abc import Iterator
from pathlib import Path

import h5py

from pipeline.core.errors import StoreError
from pipeline.core.hdf5 import read_text
from stores.difference import first_difference
from stores.index_file import read_head
from stores.layout import HEAD_FILE, STORE_FILE, VIEWS_FOLDER, ShardKey
from stores.manifest import Manifest
from stores.problems import Problem

_REMEDY = "make it again with `python -m stores index STORE`"


def check_index(store: Path, manifest: Manifest, found: list[ShardKey]) -> list[Problem]:
    """Problems of a readable store.h5: an edited manifest, links and sources that are not those of its shards."""
    path = store / STORE_FILE
    try:
        with h5py.File(path, "r", locking=False) as file:
            recorded = read_text(file, "fingerprint")
            there = Manifest.from_text(read_text(file, "manifest"), str(path))
            wrong = [*_wrong_links(file), *_wrong_head(file)]
            listed = set(_listed(file.get(VIEWS_FOLDER, {}), wrong))
    except StoreError as error:
        return [Problem(path, f"{error}; {_REMEDY}")]
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        return [Problem(path, f"cannot be read ({error}); {_REMEDY}")]
    problems = [Problem(path, f"{what}; {_REMEDY}") for what in wrong]
    problems += _wrong_manifest(path, there, recorded, manifest)
    problems += [_lost(store, key) for key in sorted(listed - set(found))]
    if set(found) - listed:
        message = f"is older than {len(set(found) - listed):,} of the shards; {_REMEDY}"
        problems.append(Problem(path, message, kind="note"))
    return problems


def _wrong_manifest(path: Path, there: Manifest, recorded: str, wanted: Manifest) -> list[Problem]:
    difference = first_difference(wanted, there)
    if difference is not None:
        both = f"  shards:   {difference.first}\n  {path.name}: {difference.second}"
        return [
            Problem(path, f"'{difference.entry}' is not what the shards say; remove the file and {_REMEDY}\n{both}")
        ]
    if recorded != there.fingerprint():
        both = f"  manifest: {there.fingerprint()}\n  recorded: {recorded}"
        return [Problem(path, f"the recorded fingerprint is not the manifest's; {_REMEDY}\n{both}")]
    return []


def check_head(store: Path, manifest: Manifest) -> list[Problem]:
    """Problems of head.h5."""
    keeps_embeddings = any(str(codec.get("id")).startswith("embedding") for codec in manifest.codecs)
    try:
        head = read_head(store, manifest)
    except StoreError as error:
        return [Problem(store / HEAD_FILE, str(error))]
    if head is None and keeps_embeddings:
        message = "is missing, and logits cannot be rebuilt without it; run the store's precompute command again"
        return [Problem(store / HEAD_FILE, message)]
    return []


def _lost(store: Path, key: ShardKey) -> Problem:
    message = f"is missing: {STORE_FILE} lists it; run the store's precompute command again"
    return Problem(key.path(store), message, view=key.view)


def _wrong_links(file: h5py.File) -> Iterator[str]:
    """Links to other files, and things that do not belong."""
    for name in file:
        if name not in (VIEWS_FOLDER, "head"):
            yield f"'{name}' does not belong into it"
    groups = [file, *(file[name] for name in (VIEWS_FOLDER, "head") if _is_hard(file, name))]
    groups += [groups[1][view] for view in groups[1] if _is_hard(groups[1], view)] if len(groups) > 1 else []
    for group in groups:
        yield from (f"'{group.name}/{name}' is a link to elsewhere" for name in group if not _is_hard(group, name))


def _is_hard(group: h5py.Group, name: str) -> bool:
    return isinstance(group.get(name, getlink=True), h5py.HardLink)


def _wrong_head(file: h5py.File) -> Iterator[str]:
    for name in file["head"] if _is_hard(file, "head") else ():
        if _is_hard(file["head"], name) and _sources(file["head"][name]) != {(HEAD_FILE, name)}:
            yield f"'head/{name}' is not taken from {HEAD_FILE}"


def _listed(views: h5py.Group, wrong: list[str]) -> Iterator[ShardKey]:
    """The shards that all datasets of a view are made of; what is not made of shards goes into `wrong`."""
    for view in views:
        for name in views[view] if _is_hard(views, view) else ():
            if _is_hard(views[view], name):
                yield from _shards_of(views[view][name], int(view), wrong)


def _shards_of(dataset: h5py.Dataset, view: int, wrong: list[str]) -> Iterator[ShardKey]:
    if not dataset.is_virtual:
        wrong.append(f"'{dataset.name}' is not a virtual dataset")
        return
    for source in dataset.virtual_sources():
        start, stop = (int(bound[0]) for bound in source.vspace.get_select_bounds())
        key = ShardKey(view, start, stop + 1)
        if source.file_name != key.path(Path()).as_posix() or source.dset_name != dataset.name.rpartition("/")[2]:
            wrong.append(f"'{dataset.name}' takes rows {start} to {stop} from {source.file_name}:{source.dset_name}")
        else:
            yield key


def _sources(dataset: h5py.Dataset) -> set[tuple[str, str]]:
    if not dataset.is_virtual:
        return set()
    return {(source.file_name, source.dset_name) for source in dataset.virtual_sources()}
