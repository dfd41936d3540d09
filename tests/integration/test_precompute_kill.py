"""A store that was killed and continued is the store that was never interrupted, byte for byte."""

import random
import signal
import time
from pathlib import Path

import pytest
from jobs import run_to_end, running, send, state_of, wait_for_words, wait_until
from precompute_jobs import check_equal, fill, shards_of, start, synthetic_flags, write_teacher

KILLS, SAMPLES, VIEWS, SHARD_ROWS = 20, 400, 10, 40
NUM_SHARDS = VIEWS * SAMPLES // SHARD_ROWS


def flags_of(folder: Path) -> list[str]:
    work = ["--views", f"0:{VIEWS}", "--shard-rows", str(SHARD_ROWS), "--batch", "24"]
    teacher = write_teacher(folder, width=96)  # some 50 ms a shard, so that kills come in the midst of the work
    return [*synthetic_flags(teacher, SAMPLES, resolution=64), *work, "--keep", "embedding_f16,dense_f16"]


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return flags_of(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def uninterrupted(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("uninterrupted") / "store"
    fill(flags, store)
    return store


def test_sigkill_at_random_moments_and_other_world_sizes(flags: list[str], uninterrupted: Path, tmp_path: Path) -> None:
    store, draws, seen = tmp_path / "store", random.Random(3), [0]
    for number in range(KILLS):
        decode = ["--views-per-decode", str(draws.choice((1, 1, 2, 3)))]
        job = start([*flags, *decode], store, size=1 + number % 3)
        with running(job):
            wait_for_words(job)
            wanted = seen[-1] + draws.choice((0, 0, 0, 1, 2))  # 0: also while data, teacher or store are being opened
            wait_until(lambda wanted=wanted: len(shards_of(store)) >= wanted, "progress", job)
            time.sleep(draws.uniform(0, 0.05))
            job.kill()
        seen.append(len(shards_of(store)))
    assert seen == sorted(seen), "sealed shards stay"
    assert seen[-1] < NUM_SHARDS, f"the last kill came too late to mean anything: {seen}"
    fill(flags, store, size=2)
    check_equal(store, uninterrupted)
    assert state_of(store / "jobs" / "part-1-of-1")["state"] == "done"


def test_two_jobs_on_one_store_at_a_time(flags: list[str], uninterrupted: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    jobs = [start(flags, store, size=size, log=tmp_path / f"log-{size}") for size in (1, 2)]
    for job in jobs:
        run_to_end(job)
    check_equal(store, uninterrupted)


def test_a_signal_to_one_rank_stops_all_and_the_same_command_goes_on(
    flags: list[str], uninterrupted: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    job = start(flags, store, size=2)
    folder = store / "jobs" / "part-1-of-1"
    with running(job):
        wait_until(lambda: len(shards_of(store)) > 3, "some shards", job)
        send(job.pids()[1], signal.SIGTERM)  # one rank is enough: they tell each other
        assert job.exit_codes() == [75, 75], job.text()
    state = state_of(folder)
    assert state["state"] == "preempted"
    assert "SIGTERM" in state["message"]
    assert 3 < len(shards_of(store)) < NUM_SHARDS
    assert list(store.rglob(".rows-*.tmp")) == []
    fill(flags, store)
    assert state_of(folder)["state"] == "done"
    check_equal(store, uninterrupted)


def test_a_rank_that_dies_ends_the_others_with_one_error(flags: list[str], tmp_path: Path) -> None:
    job = start(flags, tmp_path / "store", size=2)
    with running(job):
        wait_until(lambda: len(shards_of(tmp_path / "store")) > 3, "some shards", job)
        send(job.pids()[1], signal.SIGKILL)
        assert job.exit_codes(60) == [1, -signal.SIGKILL]
    assert "connection to another rank broke" in job.text()
    assert "Traceback" not in job.text()
