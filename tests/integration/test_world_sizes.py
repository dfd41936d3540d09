"""A run that goes on with another number of ranks is the run of one rank, up to the order of summation.

The student is smooth. With ReLU a rounding error can move an activation over the kink, and a gradient jumps: one rank
whose first weights differ by 1e-7 then ends as far from itself (3e-4 in a bias) as from another world size.
"""

import signal
from pathlib import Path

import pytest
import torch
from jobs import (
    ForkedJob,
    last_step,
    photo_flags,
    results_of,
    run_to_end,
    running,
    sample_lines,
    send,
    state_of,
    wait_for_step,
    weights_of,
    write_dropout_student,
)

STEPS = 50
RELATIVE = 1e-5  # of the largest weight of a tensor


@pytest.fixture(scope="module")
def flags(photo_folder: Path, val_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    student = write_dropout_student(tmp_path_factory.mktemp("own"))
    length = ["--epochs", "17", "--max-steps", str(STEPS), "--batch", "24", "--micro-batches", "6"]
    pace = ["--eval-every", "100", "--log-every", "1", "--checkpoint-every", "10"]
    return [
        "smoke",
        *photo_flags(photo_folder, val_folder),
        *length,
        *pace,
        "--amp",
        "off",
        "--lr",
        "0.02",
        "--student",
        student,
    ]


@pytest.fixture(scope="module")
def one_rank(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    run_to_end(ForkedJob(command_of(flags, run), log=run.parent / "log"))
    return run


def test_two_then_one_then_three_ranks(flags: list[str], one_rank: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    for size in (2, 1):
        job = ForkedJob(command_of(flags, run), log=log, size=size)
        with running(job):
            wait_for_step(run, last_step(run) + 8, job)
            send(job.pids()[-1], signal.SIGTERM)
            assert set(job.exit_codes()) == {75}
        assert state_of(run)["step"] < STEPS
    run_to_end(ForkedJob(command_of(flags, run), log=log, size=3))
    assert sample_lines(run.parent / "trace") == sample_lines(one_rank.parent / "trace")
    check_close(run, one_rank)


def test_unequal_deals(flags: list[str], one_rank: Path, tmp_path: Path) -> None:
    """Six micro-batches over four ranks: 2, 2, 1, 1."""
    run = tmp_path / "run"
    run_to_end(ForkedJob(command_of(flags, run), log=tmp_path / "log", size=4))
    assert sample_lines(run.parent / "trace") == sample_lines(one_rank.parent / "trace")
    check_close(run, one_rank)


def test_more_ranks_than_micro_batches_are_refused(flags: list[str], tmp_path: Path) -> None:
    job = ForkedJob([*command_of(flags, tmp_path / "run"), "--micro-batches", "1"], log=tmp_path / "log", size=2)
    with running(job):
        assert 0 not in job.exit_codes()
    assert "every rank needs a micro-batch" in job.text()
    assert job.text().count("error: ") == 1


def command_of(flags: list[str], run: Path) -> list[str]:
    return [*flags, "--out", str(run), "--trace", str(run.parent / "trace")]


def check_close(run: Path, expected: Path) -> None:
    """Losses, evaluation and weights, BatchNorm's buffers included."""
    for ours, theirs in zip(results_of(run), results_of(expected), strict=True):
        assert ours["loss" if ours["kind"] == "train" else "ce"] == pytest.approx(
            theirs["loss" if ours["kind"] == "train" else "ce"], rel=1e-4
        )
    weights, reference = weights_of(run), weights_of(expected)
    distances = {name: distance(value, reference[name]) for name, value in weights.items()}
    worst = max(distances, key=distances.__getitem__)
    print(f"largest relative distance: {distances[worst]:.2e} in {worst}")
    assert distances[worst] <= RELATIVE, {name: value for name, value in distances.items() if value > RELATIVE}


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    if not theirs.is_floating_point():
        return 0.0 if torch.equal(ours, theirs) else 1.0
    return float((ours - theirs).abs().max() / theirs.abs().max())
