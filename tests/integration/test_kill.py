"""A run that is killed and started again is the run that was never killed, bit for bit."""

import random
import time
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
    state_of,
    torchrun,
    wait_for_step,
    wait_for_words,
    weights_of,
    write_dropout_student,
)

STEPS = 54  # 9 epochs of 6


@pytest.fixture(scope="module")
def flags(photo_folder: Path, val_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Batch statistics over micro-batches, dropout, an average, a warm-up: whatever a restart could get wrong."""
    student = write_dropout_student(tmp_path_factory.mktemp("own"))
    recipe = ["smoke", *photo_flags(photo_folder, val_folder), "--student", student, "--ema-decay", "0.9"]
    length = ["--epochs", "9", "--max-steps", str(STEPS), "--batch", "12", "--micro-batches", "4"]
    return [*recipe, *length, "--warmup-epochs", "1", "--log-every", "1", "--checkpoint-every", "4"]


@pytest.fixture(scope="module")
def uninterrupted(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    run_to_end(ForkedJob(command_of(flags, run), log=run.parent / "log", size=2))
    return run


def test_sigkill_of_everything_at_random_steps(flags: list[str], uninterrupted: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    draws = random.Random(1)
    for _ in range(3):
        job = torchrun(command_of(flags, run), log=log)
        with running(job):
            wait_for_step(run, last_step(run) + draws.randint(3, 12), job)
            job.kill()
        assert state_of(run)["state"] == "running"
        assert last_step(run) < STEPS
    run_to_end(torchrun(command_of(flags, run), log=log))
    assert log.read_text().count("going on after step") == 3
    check_equal(run, uninterrupted)


def test_sigkill_at_random_moments(flags: list[str], uninterrupted: Path, tmp_path: Path) -> None:
    """Also inside an evaluation, a save, a rename or the set-up."""
    run, log = tmp_path / "run", tmp_path / "log"
    draws = random.Random(2)
    for _ in range(6):
        job = ForkedJob(command_of(flags, run), log=log, size=2)
        with running(job):
            wait_for_words(job)
            time.sleep(draws.random())
            job.kill()
    run_to_end(ForkedJob(command_of(flags, run), log=log, size=2))
    check_equal(run, uninterrupted)
    leftovers = [path.name for path in run.rglob("*.tmp")]
    assert not leftovers, "what a kill left half written is removed by the next start"


def test_sums_of_three_ranks_come_out_the_same_after_a_restart(tmp_path: Path) -> None:
    """The order in which three numbers are added shows in the last bit; DDP changes it after its first step."""
    recipe = ["smoke", "--batch", "12", "--max-steps", "12", "--resolution", "32", "--synthetic-samples", "120"]
    flags = [*recipe, "--log-every", "1", "--checkpoint-every", "5", "--eval-every", "100"]
    whole, broken = tmp_path / "whole" / "run", tmp_path / "broken" / "run"
    run_to_end(ForkedJob(command_of(flags, whole), log=tmp_path / "whole.log", size=3))
    job = ForkedJob(command_of(flags, broken), log=tmp_path / "broken.log", size=3)
    with running(job):
        wait_for_step(broken, 7, job)
        job.kill()
    run_to_end(ForkedJob(command_of(flags, broken), log=tmp_path / "broken.log", size=3))
    assert results_of(broken) == results_of(whole)
    ours, theirs = weights_of(broken), weights_of(whole)
    assert not [key for key, value in ours.items() if not torch.equal(value, theirs[key])]


def test_a_finished_run_started_again_changes_nothing(flags: list[str], uninterrupted: Path) -> None:
    before = (results_of(uninterrupted), weights_of(uninterrupted))
    text = run_to_end(ForkedJob(command_of(flags, uninterrupted), log=uninterrupted.parent / "again", size=2))
    assert f"going on after step {STEPS} of {STEPS}" in text
    assert results_of(uninterrupted) == before[0]
    assert all(torch.equal(value, before[1][name]) for name, value in weights_of(uninterrupted).items())


def command_of(flags: list[str], run: Path) -> list[str]:
    return [*flags, "--out", str(run), "--trace", str(run.parent / "trace")]


def check_equal(run: Path, expected: Path) -> None:
    assert state_of(run)["state"] == "done"
    assert results_of(run) == results_of(expected)
    assert len([line for line in results_of(run) if line["kind"] == "train"]) == STEPS
    assert len([line for line in results_of(run) if line["kind"] == "eval"]) == STEPS // 6
    for name in ("student.pt", "student_ema.pt"):
        ours, theirs = weights_of(run, name), weights_of(expected, name)
        assert list(ours) == list(theirs)
        differing = [key for key, value in ours.items() if not torch.equal(value, theirs[key])]
        assert not differing, f"{name}: {differing}"
    assert sample_lines(run.parent / "trace") == sample_lines(expected.parent / "trace")
