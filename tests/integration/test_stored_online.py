"""A student that learns from stored rows is the one that learns from the teacher online, on the same views.

The student is smooth: over ReLU's kinks a rounding error in the teacher's logits would grow as any other does.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs import ForkedJob, lines_of, photo_flags, run_to_end, state_of, write_dropout_student
from precompute_jobs import main_of_an_older_reflux, main_with_another_decoder

from pipeline.data.beton_writer import write_beton
from pipeline.data.index import Index
from precompute.__main__ import main as precompute

STEPS, VIEWS = 20, 2
TEACHER = "demo_teacher@random"


@pytest.fixture(scope="module")
def store(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of three views of 72 photos, dense, in shards of 20 rows."""
    folder = tmp_path_factory.mktemp("store")
    fill_store(photo_folder, folder / "store", views=f"0:{VIEWS}")
    return folder / "store"


def fill_store(
    photos: Path, store: Path, *, views: str, teacher: str = TEACHER, entry: Callable[[], None] = precompute
) -> None:
    source = ["--train-dir", str(photos), "--backend", "torchvision", "--policy", "demo_train", "--resolution", "32"]
    size = ["--views", views, "--batch", "8", "--shard-rows", "20", "--threads", "1", "--device", "cpu"]
    flags = ["--teacher", teacher, "--store", str(store), *source, *size]
    run_to_end(ForkedJob(flags, log=store.parent / "log", entry=entry))


def train(photos: Path, val: Path, run: Path, *more: str, expected: int = 0) -> str:
    """A short run of the smoke recipe on photos; returns what it printed."""
    run.parent.mkdir(exist_ok=True)
    length = ["--epochs", "7", "--max-steps", str(STEPS), "--batch", "24", "--micro-batches", "2"]
    pace = ["--log-every", "1", "--eval-every", "100", "--amp", "off", "--teacher-precision", "fp32"]
    student = ["--student", write_dropout_student(run.parent), "--lr", "0.02"]
    flags = ["smoke", *photo_flags(photos, val), *student, "--teacher", TEACHER, *length, *pace]
    return run_to_end(ForkedJob([*flags, "--out", str(run), *more], log=run.parent / "log"), expected=expected)


def losses(run: Path) -> dict[int, dict[str, Any]]:
    return {line["step"]: line for line in lines_of(run / "metrics.jsonl") if line["kind"] == "train"}


def test_stored_losses_follow_the_online_ones(
    store: Path, photo_folder: Path, val_folder: Path, tmp_path: Path
) -> None:
    online, stored = tmp_path / "online" / "run", tmp_path / "stored" / "run"
    train(photo_folder, val_folder, online, "--num-views", str(VIEWS))
    said = train(photo_folder, val_folder, stored, "--store", str(store), "--teacher-source", "stored")
    assert "teacher outputs: stored" in said
    first, second = losses(online), losses(stored)
    assert sorted(first) == sorted(second) == list(range(1, STEPS + 1))
    for step, line in first.items():
        for term in ("loss", "ce", "kd"):
            assert second[step][term] == pytest.approx(line[term], rel=1e-3), f"{term} of step {step}"
    summary = json.loads((stored / "summary.json").read_text())
    assert (summary["teacher_source"], summary["teacher"]) == ("stored", TEACHER)
    assert len(summary["store"]) == 64


def test_hybrid_reads_stored_views_and_runs_the_others(
    store: Path, photo_folder: Path, val_folder: Path, tmp_path: Path
) -> None:
    """Epoch 2 is of a view that the store has not: with the same weights its losses would be the online ones."""
    online, hybrid = tmp_path / "online" / "run", tmp_path / "hybrid" / "run"
    train(photo_folder, val_folder, online)
    train(photo_folder, val_folder, hybrid, "--store", str(store), "--teacher-source", "hybrid")
    first, second = losses(online), losses(hybrid)
    for step, line in first.items():
        assert second[step]["loss"] == pytest.approx(line["loss"], rel=1e-3)


def test_a_dry_run_says_why_the_store_is_not_read_though_the_teacher_cannot_be_had(
    store: Path, photo_folder: Path, val_folder: Path, tmp_path: Path
) -> None:
    flags = ["srrl_r34_r18", *photo_flags(photo_folder, val_folder), "--store", str(store), "--policy", "demo_train"]
    flags += ["--teacher", f"demo_teacher@{tmp_path / 'none.pt'}", "--batch", "8", "--device", "cpu", "--dry-run"]
    said = run_to_end(ForkedJob([*flags, "--out", str(tmp_path / "run")], log=tmp_path / "log"), expected=2)
    reason, failure = said.index("the store keeps dense_f16"), said.index("error: ")
    assert said.index(f"store:  {TEACHER}") < failure
    assert reason < failure


def test_a_run_may_not_change_its_source(store: Path, photo_folder: Path, val_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run" / "run"
    source = ["--store", str(store), "--teacher-source", "stored"]
    train(photo_folder, val_folder, run, *source, "--max-steps", "3")
    message = train(photo_folder, val_folder, run, "--num-views", str(VIEWS), expected=2)
    assert "teaching.teacher_source" in message
    train(photo_folder, val_folder, run, *source, "--max-steps", "5")
    assert state_of(run)["step"] == 5


def test_a_hybrid_of_two_teachers_is_refused(store: Path, photo_folder: Path, val_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run" / "run"
    seed = ["--run-seed", "1"]  # random weights follow it
    message = train(
        photo_folder, val_folder, run, "--store", str(store), "--teacher-source", "hybrid", *seed, expected=2
    )
    assert "weights differ" in message


def test_another_backend_serves_and_other_pixels_are_refused_with_figures(
    photo_folder: Path, val_folder: Path, photo_index: Index, tmp_path: Path
) -> None:
    """With a ResNet-18: demo_teacher's random logits differ so little that it tells hardly any two images apart."""
    store, teacher = tmp_path / "store", "resnet18@random"
    fill_store(photo_folder, store, views="0:1", teacher=teacher)
    stored = ["--store", str(store), "--teacher-source", "stored", "--teacher", teacher, "--max-steps", "2"]
    said = train(photo_folder, val_folder, tmp_path / "other" / "run", *stored, "--backend", "dali")
    assert "allowed 1e-05" in said, "in float32 the noise floor is 0, and the rounding 1e-7: another backend is neither"

    pytest.importorskip("ffcv")
    write_beton(photo_index, tmp_path / "small.beton", encoding="jpeg", max_side=64, quality=90)
    other, run = ["--backend", "ffcv", "--beton", str(tmp_path / "small.beton")], tmp_path / "small" / "run"
    message = train(photo_folder, val_folder, run, *stored, *other, expected=1)
    assert "the teacher tells them apart" in message
    assert "mean KL" in message
    assert "--max-divergence" in message
    said = train(photo_folder, val_folder, run, *stored, *other, "--max-divergence", "1")
    assert "mean KL" in said


def test_a_store_of_the_older_decoder_serves_by_its_measured_divergence(
    photo_folder: Path, val_folder: Path, tmp_path: Path
) -> None:
    teacher = "resnet18@random"
    stored = ["--teacher-source", "stored", "--teacher", teacher, "--max-steps", "2"]
    older, other = tmp_path / "older", tmp_path / "other"
    fill_store(photo_folder, older, views="0:1", teacher=teacher, entry=main_of_an_older_reflux)
    said = train(photo_folder, val_folder, tmp_path / "first" / "run", "--store", str(older), *stored)
    assert "pixels are made in another way than the store's: mean KL" in said
    assert "'decoder': 'pillow'" in said

    fill_store(photo_folder, other, views="0:1", teacher=teacher, entry=main_with_another_decoder)
    message = train(photo_folder, val_folder, tmp_path / "second" / "run", "--store", str(other), *stored, expected=1)
    assert "the teacher tells them apart" in message
