"""Files that exist complete or not at all."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


@contextmanager
def publish(path: Path, *, if_new: bool = False) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder; when the block ends well, make it `path`, durably.

    With `if_new`, a file that is there by then stays.

    The order is write, fsync, rename, fsync of the folder: after a crash at any moment a reader finds
    the old file or the new one. When the block raises, the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        fsync_path(temporary)
        if if_new:
            rename_if_new(temporary, path)
        else:
            temporary.replace(path)
        fsync_path(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def publish_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8), durably."""
    with publish(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def is_temporary(path: Path) -> bool:
    """Whether `path` has the name of a file that `publish` was writing when its process was killed."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def rename_if_new(source: Path, target: Path) -> bool:
    """Give `source` the name `target` unless that exists already; says whether it did. Of several jobs one wins.

    `source` may keep its own name beside the new one. Without hard links, the moment between look and rename stays
    open: then the last one wins.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if target.exists():
            return False
        source.replace(target)
    return True


def fsync_path(path: Path) -> None:
    """Force a file's or folder's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
