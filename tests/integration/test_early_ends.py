"""Asked to stop early, a job saves, ends as preempted, and the same command goes on."""

import json
import os
import signal
from pathlib import Path

import pytest
from jobs import (
    ForkedJob,
    Job,
    command,
    is_alive,
    last_step,
    results_of,
    run_to_end,
    running,
    send,
    state_of,
    torchrun,
    wait_for_step,
    wait_for_words,
    wait_until,
)

STEPS = 400


def command_of(run: Path, *flags: str) -> list[str]:
    """A job that goes on for long enough to be stopped, and ends soon."""
    length = ["--epochs", "400", "--max-steps", str(STEPS), "--batch", "12", "--synthetic-samples", "120"]
    pace = ["--eval-every", "1000", "--log-every", "1", "--checkpoint-every", "1000", "--resolution", "32"]
    return ["smoke", "--out", str(run), *length, *pace, *flags]


def check_stopped(run: Path, job: Job, name: str) -> int:
    """The state after an early end; returns the step of the checkpoint."""
    state = state_of(run)
    assert state["state"] == "preempted", f"{state}\n{job.text()}"
    assert name in state["message"]
    assert 0 < state["step"] <= STEPS
    latest = json.loads((run / "checkpoints" / "latest.json").read_text())
    assert latest["step"] == state["step"] == last_step(run)
    if isinstance(job, ForkedJob):  # torchrun prints a traceback of its own
        assert "Traceback" not in job.text()
    return int(latest["step"])


def wait_for_ends(workers: list[int], job: Job) -> None:
    wait_until(lambda: not any(map(is_alive, workers)), "the workers to end", job, timeout_s=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_process_without_torchrun_ends_with_75(tmp_path: Path, number: signal.Signals) -> None:
    job = ForkedJob(command_of(tmp_path / "run"), log=tmp_path / "log")
    with running(job):
        wait_for_step(tmp_path / "run", 3, job)
        send(job.pids()[0], number)
        assert job.exit_codes() == [75]
    check_stopped(tmp_path / "run", job, number.name)
    text = run_to_end(ForkedJob(command_of(tmp_path / "run", "--max-steps", "30"), log=tmp_path / "again"))
    assert "going on after step" in text
    assert state_of(tmp_path / "run")["state"] == "done"


def test_a_signal_to_one_rank_stops_all_at_one_step(tmp_path: Path) -> None:
    job = ForkedJob(command_of(tmp_path / "run"), log=tmp_path / "log", size=3)
    with running(job):
        wait_for_step(tmp_path / "run", 3, job)
        send(job.pids()[2], signal.SIGUSR1)
        assert job.exit_codes() == [75, 75, 75]
    check_stopped(tmp_path / "run", job, "another rank's signal")


def test_signals_to_a_worker_and_to_torchrun_itself(tmp_path: Path) -> None:
    """One run, stopped three times: no process is left each time, and it goes on each time."""
    run, log, steps = tmp_path / "run", tmp_path / "log", [0]
    for to_agent, number in ((False, signal.SIGTERM), (True, signal.SIGUSR1), (True, signal.SIGTERM)):
        job = torchrun(command_of(run), log=log)
        with running(job):
            workers = job.workers(2)
            wait_for_step(run, steps[-1] + 3, job)
            send(job.process.pid if to_agent else workers[1], number)
            job.exit_codes()
            wait_for_ends(workers, job)
        steps.append(check_stopped(run, job, "SIG" if to_agent else "another rank's signal"))
    assert steps == sorted(set(steps)), "each start went on from where the one before was stopped"
    run_to_end(torchrun(command_of(run, "--max-steps", str(steps[-1] + 5)), log=log))
    assert state_of(run)["state"] == "done"
    assert [line["step"] for line in results_of(run) if line["kind"] == "train"] == [*range(1, steps[-1] + 6)]


def test_an_evaluation_is_broken_off_and_comes_again(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    flags = ["--max-steps", "6", "--log-every", "1", "--eval-batch", "1", "--resolution", "32", "--batch", "12"]
    line = ["smoke", "--out", str(run), *flags, "--synthetic-samples", "20000"]
    job = ForkedJob(line, log=log, size=2)
    with running(job):
        wait_for_step(run, 6, job)  # written when the evaluation of 1,000 images begins
        send(job.pids()[1], signal.SIGTERM)
        assert job.exit_codes() == [75, 75]
    check_stopped(run, job, "another rank's signal")
    assert not [entry for entry in results_of(run) if entry["kind"] == "eval"]
    run_to_end(ForkedJob(line, log=log, size=2))
    (evaluation,) = [entry for entry in results_of(run) if entry["kind"] == "eval"]
    assert evaluation["num_samples"] == 1000


def test_a_signal_while_starting_is_kept(tmp_path: Path) -> None:
    job = command(command_of(tmp_path / "run"), log=tmp_path / "log")
    with running(job):
        wait_until((tmp_path / "run" / "state.json").exists, "the start", job)
        send(job.process.pid, signal.SIGTERM)
        assert job.exit_codes() in ([75], [-signal.SIGTERM])
    assert state_of(tmp_path / "run")["state"] == "preempted"


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    job = ForkedJob(command_of(tmp_path / "run"), log=tmp_path / "log")
    with running(job):
        wait_for_words(job)
        wait_for_step(tmp_path / "run", 1, job)
        os.kill(job.pids()[0], signal.SIGSTOP)  # both arrive before the next step
        send(job.pids()[0], signal.SIGINT)
        os.kill(job.pids()[0], signal.SIGCONT)
        send(job.pids()[0], signal.SIGINT)
        assert job.exit_codes() in ([-signal.SIGINT], [75])


@pytest.mark.parametrize("size", [1, 2])
def test_a_second_start_is_refused_and_the_first_goes_on(tmp_path: Path, size: int) -> None:
    run = tmp_path / "run"
    line = command_of(run, "--epochs", "40000", "--max-steps", "400000", "--micro-batches", "2")
    first = ForkedJob(line, log=tmp_path / "log")
    with running(first):
        wait_for_step(run, 3, first)
        second = ForkedJob(line, log=tmp_path / "second", size=size)
        with running(second):
            assert second.exit_codes() == [1] * size
        assert second.text().count("error: ") == 1, second.text()
        assert f"process {first.pids()[0]}, since" in second.text()
        assert state_of(run)["state"] == "running"
        send(first.pids()[0], signal.SIGKILL)  # and the next one has nothing to wait for
        first.exit_codes()
    end = last_step(run) + 5
    run_to_end(ForkedJob([*line, "--max-steps", str(end)], log=tmp_path / "third"))
    assert state_of(run)["state"] == "done"
    assert [entry["step"] for entry in results_of(run) if entry["kind"] == "train"] == [*range(1, end + 1)]
