"""Who may train in a folder: one start at a time, and no start has to wait for a dead one of its machine."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.jobs import lock as run_lock
from pipeline.jobs.lock import LOCK_FILE, RunLock

_HOLD = """
import sys, time
from pathlib import Path
from pipeline.jobs.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.take()
print("taken", flush=True)
sys.stdin.read()
lock.release()
"""


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "_ENDING_S", 0.5)
    monkeypatch.setattr(run_lock, "_SILENCE_S", 1.0)


@contextmanager
def holder(run: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its input is closed."""
    line = [sys.executable, "-c", _HOLD, str(run)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits, fails."""

    def refuse(seconds: float) -> None:
        raise AssertionError(f"waits {seconds} s")

    monkeypatch.setattr(time, "sleep", refuse)


def take(run: Path) -> str | None:
    """Take the lock and give it back; why not, where it was refused."""
    lock = RunLock(run)
    lock.take()
    lock.release()
    return None if lock.refusal is None else str(lock.refusal)


def test_a_second_start_is_refused_with_the_first_ones_name(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        refusal = take(tmp_path)
        assert refusal is not None
        assert f"host {socket.gethostname()}, process {process.pid}, since 20" in refusal
        assert f"kill -TERM {process.pid}" in refusal
        assert take(tmp_path) == refusal, "a refused start takes nothing from the holder"


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("how", ["end", "kill"])
def test_the_end_of_a_start_frees_the_run_at_once(tmp_path: Path, how: str) -> None:
    with holder(tmp_path) as process:
        if how == "end":
            process.communicate()
        else:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert take(tmp_path) is None
    assert (tmp_path / LOCK_FILE).read_bytes() == b""


def test_a_start_that_is_ending_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "_ENDING_S", 20.0)
    with holder(tmp_path) as process:
        threading.Timer(0.2, process.kill).start()
        assert take(tmp_path) is None


class TestWithoutRecordLocks:
    @pytest.fixture(autouse=True)
    def _none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "lockf", refuse)

    def test_the_process_counts(self, tmp_path: Path) -> None:
        with holder(tmp_path) as process:
            assert f"process {process.pid}" in (take(tmp_path) or "")
            process.kill()
            process.wait()
            assert take(tmp_path) is None

    def test_another_process_with_the_same_number_is_another_one(self, tmp_path: Path) -> None:
        write_holder(tmp_path, boot=run_lock._boot(), started="1")
        assert take(tmp_path) is None


class TestFromAnotherMachine:
    """Record locks that stop at the machine: ours is free, and the text says what there is to know."""

    def test_a_sign_of_life_refuses(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run_lock, "_SILENCE_S", 20.0)
        write_holder(tmp_path, beat=1)
        beat = threading.Timer(0.3, write_holder, [tmp_path], {"beat": 2})
        beat.start()
        assert "host elsewhere" in (take(tmp_path) or "")
        beat.join()

    def test_silence_frees(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_holder(tmp_path)
        assert take(tmp_path) is None
        assert "is host elsewhere, process" in capsys.readouterr().out

    @pytest.mark.usefixtures("no_waiting")
    def test_a_release_frees_at_once(self, tmp_path: Path) -> None:
        (tmp_path / LOCK_FILE).write_text("")
        assert take(tmp_path) is None


def test_the_holder_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "_BEAT_S", 0.05)
    lock = RunLock(tmp_path)
    lock.take()
    end = time.monotonic() + 20
    while json.loads(os.pread(lock._descriptor, 4096, 0))["beat"] < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert json.loads(os.pread(lock._descriptor, 4096, 0))["beat"] >= 2
    lock.release()


def test_a_damaged_text_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("{")
    assert take(tmp_path) is None


def write_holder(run: Path, *, boot: str = "other", started: str = "5", beat: int = 0) -> None:
    own = {"host": "elsewhere", "boot": boot, "pid": os.getpid(), "started": started}
    (run / LOCK_FILE).write_text(json.dumps({**own, "since": "2026-01-01 00:00:00", "beat": beat}))
