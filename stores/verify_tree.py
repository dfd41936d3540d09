"""Which files a store consists of, against those that its folder holds."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.core.atomic import is_temporary
from stores.layout import (
    HEAD_FILE,
    JOBS_FOLDER,
    STORE_FILE,
    VIEWS_FOLDER,
    ShardKey,
    parse_shard,
    parse_view,
    shard_keys,
)
from stores.manifest import Manifest
from stores.problems import Problem


def check_tree(store: Path) -> list[Problem]:
    """Foreign files and folders, and what killed jobs have left."""
    return list(_walk_store(store))


def check_presence(store: Path, manifest: Manifest, found: list[ShardKey]) -> list[Problem]:
    """Shards that are missing from the views that were begun, and files that no shard of this store can have."""
    problems = []
    for view in sorted({key.view for key in found}):
        wanted = shard_keys(view, manifest.num_rows, manifest.shard_rows)
        there = {key for key in found if key.view == view}
        problems += [_misnamed(store, key, manifest) for key in sorted(there - set(wanted))]
        missing = [key for key in wanted if key not in there]
        if missing:
            problems.append(_incomplete(store, view, missing, len(wanted)))
    return problems


def _misnamed(store: Path, key: ShardKey, manifest: Manifest) -> Problem:
    rows = f"shards have {manifest.shard_rows:,} rows each, {manifest.num_rows:,} in all"
    return Problem(key.path(store), f"no shard of this store has such rows ({rows}); move it out", view=key.view)


def _incomplete(store: Path, view: int, missing: list[ShardKey], num_wanted: int) -> Problem:
    names = ", ".join(key.path(store).name for key in missing[:3]) + (", ..." if len(missing) > 3 else "")
    message = f"view {view} is not complete: {len(missing):,} of {num_wanted:,} shards are missing ({names})"
    return Problem(missing[0].path(store).parent, message, view=view, kind="note")


def _walk_store(store: Path) -> Iterator[Problem]:
    for path in sorted(store.iterdir()):
        if path.name == VIEWS_FOLDER and path.is_dir():
            yield from _walk_views(path)
        elif path.name == JOBS_FOLDER and path.is_dir():
            continue
        elif path.name not in (STORE_FILE, HEAD_FILE) or not path.is_file():
            yield _foreign(path)


def _walk_views(folder: Path) -> Iterator[Problem]:
    for path in sorted(folder.iterdir()):
        if parse_view(path.name) is None or not path.is_dir():
            yield _foreign(path)
        else:
            yield from (_foreign(file) for file in sorted(path.iterdir()) if not _is_shard(file))


def _is_shard(path: Path) -> bool:
    key = parse_shard(path)
    return key is not None and key.path(Path()).name == path.name and path.is_file()


def _foreign(path: Path) -> Problem:
    if is_temporary(path) and path.is_file():
        return Problem(path, "left by a job that was killed; remove it when no job is running", kind="note")
    return Problem(path, "does not belong to a store; move it out")
