"""Processes that end within a limit, with all that they have started."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any


class Waiting:
    """Python that has been started early: it imports what it needs, and then waits for a line on its standard input.

    Args:
        arguments: of Python.
        log: file for what it prints.
    """

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self._process = start_python(arguments, log, stdin=subprocess.PIPE)

    def run(self, line: str, limit_s: float) -> int | None:
        """Give it the line; its exit code, or None where it was killed at its limit."""
        assert self._process.stdin is not None, "a pipe was asked for"
        with suppress(BrokenPipeError):  # it has ended already: its exit code says more
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.close()
        try:
            return self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.end()

    def end(self) -> None:
        """Kill it with all below it, if it has not ended."""
        end_tree(self._process)
        with suppress(BrokenPipeError):
            self._process.communicate()


def start_python(arguments: Sequence[str], log: Path, *, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[str]":
    """Python with these arguments; what it prints is appended to `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *arguments], stdin=stdin, stdout=output, stderr=subprocess.STDOUT, text=True
        )


def end_tree(process: "subprocess.Popen[Any]") -> None:
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
