"""One start at a time in a run's folder: RUN/lock, held by the main rank for as long as it lives.

It is a POSIX record lock, which the kernel drops with the process, however that ends; a forked helper does not inherit
it. The file's text says who holds it and changes every few seconds, as a sign of life. The text decides where record
locks do not reach: file systems that have none, or keep them to each machine (Lustre with localflock, NFS with nolock).
There, two starts on two machines within one interval of each other may both find the run free.
"""

import errno
import fcntl
import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pipeline.core.errors import RefluxError

LOCK_FILE = "lock"
_BEAT_S, _POLL_S = 10.0, 0.2
_ENDING_S = 10.0  # a process that was killed, or is saving its last checkpoint, may take a moment to go
_SILENCE_S = 120.0  # of another machine; longer than an NFS server keeps the locks of a client that is gone (90 s)
_MAX_TEXT = 4096


class RunLock:
    """The lock of one run's folder.

    Attributes:
        refusal: why `take` did not get it.
    """

    def __init__(self, run: Path) -> None:
        self._run, self._descriptor, self._beats = run, -1, 0
        self._since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._ended, self._thread = threading.Event(), threading.Thread(target=self._beat, name="lock", daemon=True)
        self.refusal: RefluxError | None = None

    def take(self) -> None:
        """Take the lock, or note in `refusal` who has it. Waits while a holder may be ending, or be gone unseen.

        Raises:
            OSError: the folder or the file cannot be made.
        """
        self._run.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._run / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
        first, begun, has_said = self._read(), time.monotonic(), False
        while True:
            text = self._read()
            verdict = _judge(text, first, got=self._try(), waited=time.monotonic() - begun)
            if verdict == "free":
                break
            if verdict == "held":
                self.refusal = _refusal(self._run, _parse(text))
                os.close(self._descriptor)
                self._descriptor = -1
                return
            if _is_elsewhere(_parse(text)) and not has_said:
                has_said = True
                who = _name(_parse(text))
                print(f"{self._run}: is {who} still at work? Waiting up to {_SILENCE_S:.0f} s for a sign", flush=True)
            time.sleep(_POLL_S)
        self._write()
        self._thread.start()

    def release(self) -> None:
        """Give the lock back; nothing happens where it was not taken."""
        if self._descriptor < 0:
            return
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = -1

    def _try(self) -> bool | None:
        """Whether the record lock is ours; None where the file system has none."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return False if error.errno in (errno.EAGAIN, errno.EACCES) else None
        return True

    def _read(self) -> bytes:
        # by the one descriptor: closing any other of this file would drop the lock
        return os.pread(self._descriptor, _MAX_TEXT, 0)

    def _write(self) -> None:
        own = {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "started": _started(os.getpid())}
        text = json.dumps({**own, "since": self._since, "beat": self._beats}).encode()
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))
        os.fsync(self._descriptor)

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_S):
            self._beats += 1
            with suppress(OSError):  # a full disk is for others to report
                self._write()


def _judge(text: bytes, first: bytes, *, got: bool | None, waited: float) -> Literal["free", "held", "wait"]:
    """Whether a run may be taken.

    Args:
        text: of the lock file.
        first: the same, when waiting began.
        got: whether the record lock is ours; None where there is none.
        waited: seconds since then.
    """
    holder = _parse(text)
    is_here = holder is not None and not _is_elsewhere(holder)
    is_over = waited > (_SILENCE_S if _is_elsewhere(holder) else _ENDING_S)
    if got is not False:
        has_ended = holder is not None and is_here and (got or _started(holder["pid"]) != holder["started"])
        if not text or has_ended or (text == first and is_over and not is_here):
            return "free"
    return "held" if text != first or is_over else "wait"


def _parse(text: bytes) -> dict[str, Any] | None:
    """Who holds the lock; None after a release, or where the text is damaged."""
    with suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict) and {"host", "boot", "pid", "started", "since"} <= found.keys():
            return found
    return None


def _is_elsewhere(holder: dict[str, Any] | None) -> bool:
    return holder is not None and holder["boot"] != _boot()


def _refusal(run: Path, holder: dict[str, Any] | None) -> RefluxError:
    who = "another process" if holder is None else f"{_name(holder)}, since {holder['since']}"
    stop = "" if holder is None else f" or stop it (kill -TERM {holder['pid']} there),"
    return RefluxError(
        f"one start at a time may train {run}, and it is being trained: {who}.\n"
        f"Let that one end,{stop} or choose another --out for a new run."
    )


def _name(holder: dict[str, Any] | None) -> str:
    assert holder is not None
    return f"host {holder['host']}, process {holder['pid']}"


def _boot() -> str:
    """This machine since its last start: tells apart machines that share a name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks; "" where it is no more. Process ids are used again."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in ("Z", "X") else fields[19]
    return ""
