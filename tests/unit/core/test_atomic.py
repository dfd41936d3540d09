"""Files that exist complete or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.atomic import publish, publish_text


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "down" / "a.txt"
    with publish(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["a.txt"]


def write_half(target: Path) -> None:
    with publish(target) as temporary:
        temporary.write_text("ne")
        raise ValueError("half way")


def test_a_failing_block_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    publish_text(target, "old")
    with pytest.raises(ValueError, match="half way"):
        write_half(target)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        with publish(tmp_path / "a.txt"):
            pass
    assert os.listdir(tmp_path) == []


def test_text_is_utf8(tmp_path: Path) -> None:
    publish_text(tmp_path / "a.txt", "Größe µ")
    assert (tmp_path / "a.txt").read_bytes() == "Größe µ".encode()


WRITER = """
import sys
from pathlib import Path
from pipeline.core.atomic import publish
with publish(Path(sys.argv[1])) as temporary:
    with temporary.open("wb") as file:
        file.write(bytes(1 << 20))
        file.flush()
        print("half way", flush=True)
        sys.stdin.read()
"""


def test_a_killed_writer_leaves_the_old_file_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old" * 1000)
    command = [sys.executable, "-c", WRITER, str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "half way\n"
        writer.send_signal(signal.SIGKILL)
        writer.wait(timeout=60)
    assert target.read_bytes() == b"old" * 1000
    publish_text(target, "newer")  # the dead writer's remains are in nobody's way
    assert target.read_text() == "newer"
