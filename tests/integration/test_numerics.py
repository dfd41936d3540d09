"""Precisions, compilation and losses that leave the numbers, as whole small jobs; a disk that fills up."""

import math
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs import ForkedJob, last_step, results_of, run_to_end, running, state_of

from pipeline.jobs.checkpoint import find_latest

TINY = [
    "--synthetic-samples",
    "48",
    "--synthetic-classes",
    "4",
    "--resolution",
    "32",
    "--batch",
    "8",
    "--log-every",
    "1",
]


def losses_of(run: Path, *flags: str) -> list[float]:
    run_to_end(ForkedJob(["smoke", "--out", str(run), *TINY, *flags], log=run.parent / f"{run.name}.log"))
    return [line["loss"] for line in results_of(run) if line["kind"] == "train"]


@pytest.fixture(scope="module")
def in_float32(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return losses_of(tmp_path_factory.mktemp("fp32") / "run", "--max-steps", "3", "--amp", "off")


@pytest.mark.parametrize(
    "flags", [["--amp", "bf16"], ["--amp", "fp16"], ["--amp", "bf16", "--teacher-precision", "bf16"]]
)
def test_half_precision_is_close_to_float32(tmp_path: Path, flags: list[str], in_float32: list[float]) -> None:
    losses = losses_of(tmp_path / "run", "--max-steps", "3", *flags)
    assert losses[0] == pytest.approx(in_float32[0], rel=0.05)
    assert losses != in_float32
    assert all(map(math.isfinite, losses))


def test_fp16_goes_on_with_its_scaler(tmp_path: Path) -> None:
    """The scale is part of the state: stopped and resumed equals straight through."""
    straight = losses_of(tmp_path / "straight", "--amp", "fp16", "--max-steps", "4")
    losses_of(tmp_path / "halved", "--amp", "fp16", "--max-steps", "2")
    resumed = losses_of(tmp_path / "halved", "--amp", "fp16", "--max-steps", "4")
    assert resumed == straight
    state, _ = find_latest(tmp_path / "halved")
    assert state is not None
    assert state["scaler"]["scale"] > 1


@pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler, which torch.compile needs on CPUs: g++"
)
def test_compiled_is_close_to_eager(tmp_path: Path) -> None:
    """Compiling is slow: a network of two layers as teacher and student."""
    (tmp_path / "tiny.py").write_text(
        "from torch import nn\n"
        "def tiny(*, num_classes):\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, num_classes))\n"
    )
    tiny = f"{tmp_path}/tiny.py:tiny"
    flags = ["--student", tiny, "--teacher", f"{tiny}@random", "--max-steps", "2", "--ema-decay", "0.9"]
    eager = losses_of(tmp_path / "eager", *flags)
    assert losses_of(tmp_path / "compiled", *flags, "--compile") == pytest.approx(eager, rel=1e-4)


@pytest.mark.parametrize("size", [1, 2])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, size: int) -> None:
    line = ["smoke", "--out", str(tmp_path / "run"), *TINY, "--lr", "1e30", "--schedule", "constant"]
    job = ForkedJob([*line, "--checkpoint-every", "1"], log=tmp_path / "log", size=size)
    with running(job):
        assert set(job.exit_codes()) == {1}
    assert "the loss is not finite after step" in state_of(tmp_path / "run")["message"]
    assert "Traceback" not in job.text()
    assert job.text().count("error: ") == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)]).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_one_clear_error(small_disk: Path, tmp_path: Path) -> None:
    run = small_disk / "run"
    line = ["smoke", "--out", str(run), *TINY, "--checkpoint-every", "1", "--eval-every", "100"]
    run_to_end(ForkedJob([*line, "--max-steps", "2"], log=tmp_path / "first"))
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk)
    ballast.write_bytes(bytes(free.f_bavail * free.f_bsize - (64 << 10)))
    job = ForkedJob([*line, "--max-steps", "8"], log=tmp_path / "second")
    with running(job):
        assert job.exit_codes() == [1], job.text()
    assert job.text().count("error: ") == 1, job.text()
    assert "Traceback" not in job.text()
    assert str(run) in job.text()
    assert "start the same command again" in job.text()
    ballast.unlink()
    run_to_end(ForkedJob([*line, "--max-steps", "8"], log=tmp_path / "third"))
    assert state_of(run)["state"] == "done"
    assert last_step(run) == 8
