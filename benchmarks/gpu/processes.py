"""Processes that end within a limit, with all that they have started."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path


def run_python(arguments: Sequence[str], log: Path, limit_s: float) -> int | None:
    """Run Python with these arguments, its output to `log`; the exit code, or None where it was killed at its limit."""
    with log.open("wb") as output:
        command = [sys.executable, *arguments]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end_tree(process)


def end_tree(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to a process and all below it, in whatever groups and sessions they are; one that has ended is fine."""
    for pid in (process.pid, *_descendants(process.pid)) if process.poll() is None else ():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def last_line(text: str) -> str:
    """What a program that failed has said last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "(nothing printed)"


def _descendants(pid: int) -> set[int]:
    parents, found = dict(_parents()), {pid}
    while below := {child for child, parent in parents.items() if parent in found} - found:
        found |= below
    return found - {pid}


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])
