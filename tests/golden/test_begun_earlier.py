"""A run and a store that commit 25682e0 began: every later program must go on with them, to the same numbers.

`run_v1/run` is a run of 16 steps that its --max-steps ended after 7, whose method has projections, banks, random
negatives and a learned temperature; `store_filled_v1` is a store of two views that a SIGTERM ended one shard early.
With a checkout of that commit, `PYTHONPATH=CHECKOUT:tests python tests/golden/test_begun_earlier.py` has written them,
and what that commit itself makes of them. Never write them anew for a program that cannot go on with them.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recorded import (
    EXIT_PREEMPTED,
    NETWORKS,
    ONE_CORE,
    STUDENT,
    SYNTHETIC,
    TEACHER,
    arithmetic,
    check_equal,
    fill,
    leaves,
    losses_of,
    read,
    train,
    weights_of,
    write,
)

from stores.reader import open_store

RUN, STORE = NETWORKS / "run", NETWORKS.with_name("store_filled_v1")
EXPECTED = NETWORKS / "expected.json"
_STEPS = "--eval-batch 32 --batch 16 --micro-batches 2 --epochs 4 --log-every 1"
RUN_LINE = (
    f"ctkd_crd_r34_r18 {STUDENT} {TEACHER} {SYNTHETIC} {ONE_CORE} {_STEPS} --feature-dim 8 --num-negatives 16"
    " --warmup-epochs 1 --lr 0.05 --milestones 2 3 --ema-decay 0.9 --checkpoint-every 5 --keep 1"
)
FILL_LINE = f"{TEACHER} {SYNTHETIC} {ONE_CORE} --views 0:2 --keep embedding_f16 --batch 8 --shard-rows 32"
TAUGHT_LINE = (
    f"smoke {STUDENT} {TEACHER} {SYNTHETIC} {ONE_CORE} {_STEPS} --policy imagenet_train --teacher-source stored"
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RUN, tmp_path / "run"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORE, tmp_path / "store"))


def test_the_run_goes_on_to_the_weights_that_its_own_program_reached(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = read(EXPECTED)
    assert train(RUN_LINE, "--out", run) == 0
    assert "going on after step 7 of 16" in capsys.readouterr().out
    state = json.loads((run / "state.json").read_text())
    assert (state["state"], state["step"], state["total_steps"]) == ("done", 16, 16)
    check_equal(outcome_of_run(run), expected["run"], expected["made_with"], "the run that goes on")


def test_its_configuration_is_written_again_as_it_was(run: Path) -> None:
    """Other fields may have come since."""
    before = dict(leaves(json.loads((RUN / "config.json").read_text())))
    assert train(RUN_LINE, "--out", run, "--max-steps", "7") == 0
    after = dict(leaves(json.loads((run / "config.json").read_text())))
    assert {place: after.get(place) for place in before} == {**before, "/files/out": str(run)}


def test_the_store_gets_its_missing_shard_and_keeps_the_others(store: Path) -> None:
    expected, before = read(EXPECTED), shards(store)
    assert open_store(store).complete_views() == [0]
    assert fill(FILL_LINE, "--store", store) == 0
    assert open_store(store).complete_views() == [0, 1]
    after = shards(store)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1
    check_equal(rows_of(store), expected["rows"], expected["made_with"], "rows of the filled store")


@pytest.mark.parametrize("views", ["1", "2"])
def test_the_store_teaches_a_new_run(store: Path, tmp_path: Path, views: str) -> None:
    """Of the view that was complete, and of both when the store has been filled."""
    expected = read(EXPECTED)
    if views == "2":
        assert fill(FILL_LINE, "--store", store) == 0
    assert train(TAUGHT_LINE, "--store", store, "--num-views", views, "--out", tmp_path / "taught") == 0
    found = losses_of(tmp_path / "taught")
    check_equal(found, expected["taught"][views], expected["made_with"], "losses of the run that the store taught")


def outcome_of_run(run: Path) -> dict[str, Any]:
    return {"losses": losses_of(run), **{name: weights_of(run, name) for name in ("student.pt", "student_ema.pt")}}


def shards(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.glob("views/*/rows-*.h5"))}


def rows_of(store: Path) -> dict[str, Any]:
    """Every complete view's columns."""
    reader = open_store(store)
    views = {view: reader.gather(view, np.arange(64)) for view in reader.complete_views()}
    return {str(view): {name: rows.tolist() for name, rows in columns.items()} for view, columns in views.items()}


def record() -> None:
    """With an earlier commit's programs: begin the run and the store, and go on with copies of them."""
    _write_teacher()
    assert train(RUN_LINE, "--out", "run", "--max-steps", "7") == 0
    for path in ("curves.png", "lock", "student.pt", "student_ema.pt", "summary.json"):
        (RUN / path).unlink()
    shutil.rmtree(RUN / "tensorboard")
    _interrupt_the_filling(at_batch=13)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(RUN, folder / "run")
        shutil.copytree(STORE, folder / "store")
        assert train(RUN_LINE, "--out", folder / "run") == 0
        assert train(TAUGHT_LINE, "--store", STORE, "--num-views", "1", "--out", folder / "1") == 0
        assert fill(FILL_LINE, "--store", folder / "store") == 0
        assert train(TAUGHT_LINE, "--store", folder / "store", "--num-views", "2", "--out", folder / "2") == 0
        expected = {
            "made_with": arithmetic(),
            "run": outcome_of_run(folder / "run"),
            "rows": rows_of(folder / "store"),
            "taught": {views: losses_of(folder / views) for views in ("1", "2")},
        }
    write(EXPECTED, expected)


def _write_teacher() -> None:
    """Random weights drawn by a seed differ in their last bits between processors; those of a file do not."""
    sys.path.insert(0, str(NETWORKS))
    from networks import teacher

    torch.manual_seed(0)
    torch.save(teacher(num_classes=4).state_dict(), NETWORKS / "teacher.pt")


def _interrupt_the_filling(at_batch: int) -> None:
    from precompute.pulse import Pulse

    check, batches = Pulse.check, iter(range(1, 1000))

    def counted(pulse: Pulse) -> None:
        if next(batches) == at_batch:
            os.kill(os.getpid(), signal.SIGTERM)
        check(pulse)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pulse, "check", counted)
        assert fill(FILL_LINE, "--store", STORE) == EXIT_PREEMPTED


if __name__ == "__main__":
    record()
