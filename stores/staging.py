"""Views nearer to their readers: copies on fast local storage, made once a machine; or the page cache alone."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.atomic import publish
from stores.layout import ShardKey, view_folder
from stores.manifest import Manifest

_BLOCK_BYTES = 1 << 22


def staged_store(folder: Path, manifest: Manifest) -> Path:
    """Where copies of this store lie in `folder`, which several stores may share."""
    return folder / f"reflux-store-{manifest.fingerprint()[:16]}"


def stage_shards(store: Path, staged: Path, keys: list[ShardKey]) -> None:
    """Copy shards of one view that `staged` does not have yet, each under a temporary name until it is whole.

    Raises:
        OSError: with the file's name: no space, no permission.
    """
    with _alone(staged, keys[0].view):
        pairs = [(key.path(store), key.path(staged)) for key in keys]
        missing = [(source, copy) for source, copy in pairs if not _same_size(source, copy)]
        _require_space(staged, sum(source.stat().st_size for source, _ in missing))
        for source, copy in missing:
            with publish(copy) as temporary:
                shutil.copyfile(source, temporary)


def warm_shards(paths: list[Path]) -> None:
    """Read files from beginning to end, so that the page cache has them."""
    block = bytearray(_BLOCK_BYTES)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(block):
                pass


def unstage_shards(staged: Path, keys: list[ShardKey]) -> None:
    """Remove the copies of a view's shards."""
    if not view_folder(staged, keys[0].view).exists():
        return
    with _alone(staged, keys[0].view):
        shutil.rmtree(view_folder(staged, keys[0].view), ignore_errors=True)


@contextmanager
def _alone(staged: Path, view: int) -> Iterator[None]:
    """One process of this machine at a time; the lock ends with its process, whatever becomes of it."""
    staged.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(staged / f"view-{view:04d}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _same_size(source: Path, copy: Path) -> bool:
    return copy.exists() and copy.stat().st_size == source.stat().st_size


def _require_space(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        needed, free = needed_bytes / 1e9, free_bytes / 1e9
        raise OSError(errno.ENOSPC, f"staging a view needs {needed:.2f} GB, {free:.2f} GB are free", str(folder))
