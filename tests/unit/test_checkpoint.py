"""Checkpoints: whole or absent, the newest few kept, damage found."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.core.errors import CheckpointError
from pipeline.devices.streams import host_like
from pipeline.jobs import checkpoint
from pipeline.jobs.checkpoint import (
    CHECKPOINT_VERSION,
    CheckpointWriter,
    find_latest,
    read_checked,
    write_checked,
)


def state_of(step: int, values: int = 1000) -> dict[str, Any]:
    nested = {"weight": torch.full((values,), float(step)), "momenta": [torch.arange(3), None, (1, 2.5, "text")]}
    return {"version": CHECKPOINT_VERSION, "step": step, "module": nested, "scaler": {}}


def save(run: Path, steps: range, *, keep: int = 2, best: int | None = None) -> None:
    writer = CheckpointWriter(run, keep)
    for step in steps:
        writer.save(state_of(step), is_best=step == best)
    writer.wait()


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    save(tmp_path, range(5, 6))
    state, problems = find_latest(tmp_path)
    assert problems == []
    assert state is not None
    assert state["step"] == 5
    assert torch.equal(state["module"]["weight"], torch.full((1000,), 5.0))
    assert state["module"]["momenta"][2] == (1, 2.5, "text")


def test_copies_keep_their_strides(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    for original in (weight, weight.to("meta")):  # "meta" stands for any other device
        copied = host_like(original)
        assert (copied.device.type, copied.stride()) == ("cpu", weight.stride())
    writer = CheckpointWriter(tmp_path, 1)
    writer.save({**state_of(1), "optimizer": {"momentum_buffer": weight}}, is_best=False)
    writer.wait()
    state, _ = find_latest(tmp_path)
    assert state is not None
    assert state["optimizer"]["momentum_buffer"].stride() == weight.stride()


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert find_latest(tmp_path) == (None, [])


def test_the_state_may_change_while_it_is_written(tmp_path: Path) -> None:
    state, writer = state_of(1, values=1_000_000), CheckpointWriter(tmp_path, 2)
    writer.save(state, is_best=False)
    state["module"]["weight"].zero_()
    writer.wait()
    found, _ = find_latest(tmp_path)
    assert found is not None
    assert found["module"]["weight"].min() == 1


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_few_and_the_best_are_kept(tmp_path: Path, keep: int) -> None:
    save(tmp_path, range(1, 6), keep=keep, best=2)
    kept = [f"step-{step:08d}" for step in range(6 - keep, 6)]
    assert names(tmp_path) == sorted(["latest.json", *(f"{name}{end}" for name in kept for end in (".json", ".pt"))])
    assert json.loads((tmp_path / "checkpoints" / "latest.json").read_text())["step"] == 5
    assert torch.load(tmp_path / "best.pt", weights_only=True)["step"] == 2


@pytest.mark.parametrize("where", [0.02, 0.5, 0.98])
def test_one_flipped_bit_is_found_and_an_older_one_serves(tmp_path: Path, where: float) -> None:
    save(tmp_path, range(1, 3))
    path = tmp_path / "checkpoints" / "step-00000002.pt"
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"step-00000002.pt is damaged"):
        read_checked(path)
    state, problems = find_latest(tmp_path)
    assert state is not None
    assert state["step"] == 1
    assert len(problems) == 1


def test_a_cut_file_is_found(tmp_path: Path) -> None:
    save(tmp_path, range(1, 2))
    path = tmp_path / "checkpoints" / "step-00000001.pt"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="move the folder away"):
        find_latest(tmp_path)


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.pt"
    write_checked(path, {**state_of(1), "version": CHECKPOINT_VERSION + 1})
    with pytest.raises(CheckpointError, match=f"version {CHECKPOINT_VERSION + 1}, this program reads"):
        read_checked(path)


@pytest.mark.parametrize(("survived", "values"), [(0, 1), (1, 7)])
def test_a_step_saved_again_is_there_whenever_the_kill_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int, values: int
) -> None:
    """As when an evaluation followed the first save. It is the only checkpoint: nothing older could take its place."""
    path = tmp_path / "checkpoints" / "step-00000002.pt"
    write_checked(path, state_of(2, values=1))
    publish_text, calls = checkpoint.publish_text, iter(range(10))

    class Killed(BaseException):
        pass

    def killed_after(target: Path, text: str) -> None:
        if next(calls) >= survived:
            raise Killed
        publish_text(target, text)

    monkeypatch.setattr(checkpoint, "publish_text", killed_after)
    with pytest.raises(Killed):
        write_checked(path, state_of(2, values=7))
    state, problems = find_latest(tmp_path)
    assert state is not None
    assert (state["step"], problems) == (2, [])
    assert state["module"]["weight"].numel() == values
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match="damaged"):
        find_latest(tmp_path)


def write_forever(run: Path, first: int) -> None:
    writer = CheckpointWriter(run, 2)
    for step in range(first, 10**6):
        writer.save(state_of(step, values=20_000), is_best=step % 3 == 0)


def test_killed_at_random_moments_the_newest_is_whole(tmp_path: Path) -> None:
    draws, newest = random.Random(5), 0
    for _ in range(12):
        writer = multiprocessing.get_context("fork").Process(target=write_forever, args=(tmp_path, newest + 1))
        writer.start()
        time.sleep(0.02 + 0.15 * draws.random())
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        state, problems = find_latest(tmp_path)
        assert problems == []
        step = 0 if state is None else state["step"]
        assert step >= newest, "what was durable stays"
        newest = step
    assert newest > 0


def test_a_full_disk_leaves_earlier_checkpoints_whole(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        save(disk, range(1, 2))
        writer = CheckpointWriter(disk, 2)
        writer.save(state_of(2, values=1_000_000), is_best=False)
        with pytest.raises(CheckpointError, match="could not be written"):
            writer.wait()
        state, problems = find_latest(disk)
        assert state is not None
        assert (state["step"], problems) == (1, [])
        assert not list(disk.rglob("*.tmp"))
        writer.save(state_of(3), is_best=False)
        writer.wait()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
