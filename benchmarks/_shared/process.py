"""What the kernel says of this process, and what it is asked to forget."""

import os
from collections.abc import Iterable
from pathlib import Path


def own(file: str, name: str) -> int:
    """The numbers in /proc/self/`file` on lines that begin with `name`, added up (proc(5); memory is in kB)."""
    lines = Path("/proc/self", file).read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(name))


def drop_page_cache(paths: Iterable[Path]) -> bool:
    """Ask the kernel to forget these files' pages; it does so for pages that are clean and that nobody maps.

    False where that is not permitted.
    """
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            return False
        finally:
            os.close(descriptor)
    return True
