"""How a store is read: by memory map from local disks, by read calls from file systems of a network.

There a map turns every error of the network, and every file that somebody cuts short, into a signal that kills the
process.
"""

import re
from pathlib import Path
from typing import Literal

StoreIO = Literal["auto", "mmap", "pread"]

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "fhgfs", "ceph", "cifs", "smb", "fuse", "9p", "virtiofs", "afs", "gfs",
            "ocfs", "orangefs", "pvfs", "panfs", "wekafs", "glusterfs")  # fmt: skip


def is_local(folder: Path) -> bool:
    """Whether `folder` lies on a disk or in the memory of this machine; False where that cannot be told."""
    kind = file_system_type(folder)
    return kind is not None and not kind.startswith(_NETWORK)


def file_system_type(folder: Path) -> str | None:
    """The kernel's name of `folder`'s file system, such as "ext4" or "nfs4"; None where it does not say."""
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return type_in_mounts(mounts, folder.resolve())


def type_in_mounts(mounts: str, folder: Path) -> str | None:
    """As `file_system_type`, for the text of a mountinfo file (proc(5)) and an absolute path."""
    found, depth = None, -1
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        words = left.split(" ")
        if len(words) < 5 or not right:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[4]))
        if folder.is_relative_to(point) and len(point.parts) >= depth:  # the last one of a place lies on top
            found, depth = right.split(" ")[0], len(point.parts)
    return found
