"""Precompute jobs from flags to store: right rows, the same whoever made them, refusals before any work."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import CommandJob, ForkedJob, run_to_end, running, state_of
from precompute_jobs import (
    OLDER_RECIPE,
    SMALL_FILE_BYTES,
    TEACHER,
    check_equal,
    contents,
    fill,
    leftovers,
    made_with,
    main_of_an_older_reflux,
    main_with_a_full_disk,
    main_with_another_decoder,
    main_without_rights,
    photo_flags,
    shards_of,
    start,
    synthetic_flags,
    write_teacher,
)

from pipeline.data.backend import BackendOptions, Source, open_backend
from pipeline.data.index import Index
from pipeline.data.plan import Plan
from pipeline.data.policy import get_policy
from pipeline.data.scan import scan_folder
from pipeline.teachers.preparation import preparation
from pipeline.teachers.rebuild import build_teacher
from pipeline.teachers.runner import TeacherRunner
from precompute.__main__ import main
from stores.index_file import read_manifest
from stores.reader import open_store

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
NORMALISATION = ["--mean", *map(str, MEAN), "--std", *map(str, STD)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_teacher(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def flags(teacher: str, photo_folder: Path, val_folder: Path) -> list[str]:
    kept = ["--views", "0:3", "--keep", "dense_f16,embedding_f16", *NORMALISATION]
    return [*photo_flags(teacher, photo_folder, val_folder), *kept]


@pytest.fixture(scope="module")
def store(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("filled") / "store"
    fill(flags, store)
    return store


class TestRows:
    def test_are_the_teachers_outputs_of_the_views(self, store: Path, teacher: str, photo_index: Index) -> None:
        reader, ids = open_store(store), np.arange(len(photo_index))[::-1].copy()
        found = reader.gather(2, ids)
        plan = Plan(get_policy("imagenet_train"), 0)
        rows = plan.rows(ids, np.full(len(ids), 2), photo_index.widths[ids], photo_index.heights[ids])
        outputs = outputs_of(teacher, Source(photo_index), rows, MEAN, STD)
        np.testing.assert_array_equal(found["label"], photo_index.labels[ids])
        np.testing.assert_array_equal(found["plan_crc"], rows.crc())
        for codec, expected in zip(reader.codecs, outputs, strict=True):
            fields = {field.name: found[field.name] for field in codec.fields}
            assert np.all(np.abs(codec.decode(fields) - expected) <= codec.bound(expected) + 1e-5)

    def test_manifest_says_what_they_are(self, store: Path, teacher: str, photo_index: Index) -> None:
        manifest = read_manifest(store)
        assert manifest.index_fingerprint == photo_index.fingerprint
        assert manifest.classes == photo_index.classes
        assert manifest.pixel_recipe.backend == "torchvision"
        assert manifest.teacher.name == teacher
        assert manifest.teacher.mean == MEAN
        assert manifest.teacher.precision == "fp32"
        assert manifest.measured.noise_floor.kl < 1e-6
        assert 0 < manifest.measured.codecs["dense_f16"].kl < 1e-5
        assert manifest.made_with["torch"] == str(torch.__version__)

    def test_the_teachers_top1_is_that_of_the_validation_images(
        self, store: Path, teacher: str, val_folder: Path
    ) -> None:
        val = scan_folder(val_folder)[0]
        rows = Plan(get_policy("imagenet_eval"), 0).rows(val.ids, val.ids * 0, val.widths, val.heights)
        logits, _ = outputs_of(teacher, Source(val), rows, MEAN, STD)
        recorded = read_manifest(store).measured.top1
        assert recorded.top1 == pytest.approx(100 * np.mean(logits.argmax(1) == val.labels))
        assert recorded.num_samples == len(val)
        assert f"top-1 {recorded.top1:.2f} %" in (store.parent / "store.log").read_text()


class TestTheSameStore:
    def test_from_two_ranks(self, flags: list[str], store: Path, tmp_path: Path) -> None:
        fill(flags, tmp_path / "store", size=2)
        check_equal(tmp_path / "store", store)

    def test_from_two_views_a_decode(self, flags: list[str], store: Path, tmp_path: Path) -> None:
        fill([*flags, "--views-per-decode", "2"], tmp_path / "store")
        check_equal(tmp_path / "store", store)

    def test_from_independent_parts_in_any_order(self, flags: list[str], store: Path, tmp_path: Path) -> None:
        fill([*flags, "--part", "2/2"], tmp_path / "store")
        assert 0 < len(shards_of(tmp_path / "store")) < len(shards_of(store))
        fill([*flags, "--part", "1/2"], tmp_path / "store", size=2)
        check_equal(tmp_path / "store", store)
        assert open_store(tmp_path / "store").complete_views() == [0, 1, 2]

    def test_started_again_makes_nothing_again(self, flags: list[str], store: Path) -> None:
        before = {shard: (store / shard).stat().st_mtime_ns for shard in shards_of(store)}
        text = fill([*flags, "--part", "1/1"], store, size=2)
        assert "0 shard(s) to make" in text
        assert {shard: (store / shard).stat().st_mtime_ns for shard in shards_of(store)} == before

    def test_the_same_weights_under_another_name_go_on(self, flags: list[str], store: Path, tmp_path: Path) -> None:
        moved = write_teacher(tmp_path)
        assert "0 shard(s) to make" in fill([*flags, "--teacher", moved], store)

    def test_a_shard_that_was_removed_comes_back(self, flags: list[str], store: Path, tmp_path: Path) -> None:
        copy = tmp_path / "store"
        fill([*flags, "--views", "0:1"], copy)
        fill(flags, copy)
        (copy / shards_of(copy)[4]).unlink()
        text = fill(flags, copy)
        assert "1 shard(s) to make: 32 rows" in text
        check_equal(copy, store)


def test_a_store_of_an_older_decoder_goes_on_where_its_rows_agree(
    flags: list[str], store: Path, tmp_path: Path
) -> None:
    old = tmp_path / "store"
    fill([*flags, "--views", "0:1"], old, entry=main_of_an_older_reflux)
    assert read_manifest(old).pixel_recipe.to_json() == OLDER_RECIPE
    before = contents(old)
    text = fill(flags, old, size=2)
    assert "pixels are made by another decoder than the store's; its rows allow to go on" in text
    assert "64 rows computed again" in text
    assert read_manifest(old).pixel_recipe.to_json() == OLDER_RECIPE
    assert open_store(old).complete_views() == [0, 1, 2]
    check_equal(old, store)
    assert before.items() <= contents(old).items(), "what was there stays"
    recorded = [made_with(old / shard).get("pixel_recipe") for shard in shards_of(old)]
    assert recorded[:3] == [None] * 3, "its first view"
    assert [recipe["decoder"] for recipe in recorded[3:]] == ["pillow"] * 6
    assert "another decoder" not in fill(flags, old).rpartition("0 shard(s) to make")[2]


def test_a_store_of_other_pixels_is_not_gone_on_with(flags: list[str], tmp_path: Path) -> None:
    old, again = tmp_path / "store", tmp_path / "again"
    fill([*flags, "--views", "0:1"], old, entry=main_with_another_decoder)
    before = contents(old)
    text = fill(flags, old, expected=1)
    assert "the teacher tells them apart" in text
    assert "begin another one with --store" in text
    assert contents(old) == before
    fill([*flags, "--views", "0:1"], again, entry=main_of_an_older_reflux)
    (again / shards_of(again)[0]).unlink()
    assert "no view is complete" in fill(flags, again, expected=1)


@pytest.mark.parametrize("changed", [["--keep", "zip"], ["--teacher", "resnet18"], ["--keep", "topk:5000"]])
def test_two_ranks_say_a_wrong_flag_once_and_leave_no_store(
    flags: list[str], tmp_path: Path, changed: list[str]
) -> None:
    job = start([*flags, *changed], tmp_path / "store", size=2)
    with running(job):
        assert set(job.exit_codes()) <= {1, 2}
    assert job.text().count("error: ") == 1, job.text()
    assert not (tmp_path / "store").exists()


def test_a_wrong_teacher_is_refused_before_a_store_is_begun(flags: list[str], tmp_path: Path) -> None:
    job = start([*flags, "--expect-top1", "99"], tmp_path / "store", size=2)
    with running(job):
        assert job.exit_codes()[0] == 2
    text = job.text()
    assert text.count("Wrong normalisation") == 1, "one of two ranks says it"
    assert [entry.name for entry in (tmp_path / "store").iterdir()] == ["jobs"]
    state = state_of(tmp_path / "store" / "jobs" / "part-1-of-1")
    assert state["state"] == "usage"
    assert "99.00 %" in state["message"]


def test_a_teacher_that_does_not_end_in_its_linear_layer_is_refused(flags: list[str], tmp_path: Path) -> None:
    path = tmp_path / "squashed.py"
    path.write_text(TEACHER.replace("nn.Linear(64, num_classes),", "nn.Linear(64, num_classes), nn.Softmax(dim=1),"))
    text = fill([*flags, "--teacher", f"{path}:teacher@random"], tmp_path / "store", expected=2)
    assert "must be the output of the last linear layer" in text
    assert not (tmp_path / "store" / "store.h5").exists()


def test_a_top1_measured_later_is_recorded_too(
    teacher: str, photo_folder: Path, val_folder: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    assert "top-1 is not measured" in fill(photo_flags(teacher, photo_folder), store)
    assert read_manifest(store).measured.top1 is None
    fill(photo_flags(teacher, photo_folder, val_folder), store)
    assert read_manifest(store).measured.top1.num_samples == 21


def test_a_foreign_folder_is_left_alone(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    assert "thesis.tex" in fill(flags, tmp_path / "mine", expected=2)
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_full_disk_shows_no_half_shard_and_the_same_command_goes_on(teacher: str, tmp_path: Path) -> None:
    flags = [*synthetic_flags(teacher, 1000), "--views", "0:2", "--batch", "64", "--shard-rows", "400"]
    assert 400 * (2 * 64 + 12) > SMALL_FILE_BYTES > 200 * (2 * 64 + 12), "whole shards are too large, the last fits"
    flags += ["--keep", "embedding_f16"]
    text = fill(flags, tmp_path / "store", size=2, entry=main_with_a_full_disk, expected=1)
    assert "cannot write the store" in text
    assert "Traceback" not in text
    assert state_of(tmp_path / "store" / "jobs" / "part-1-of-1")["state"] == "failed"
    assert leftovers(tmp_path / "store") == []
    fill(flags, tmp_path / "store")
    fill(flags, tmp_path / "whole")
    check_equal(tmp_path / "store", tmp_path / "whole")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process with other rights")
def test_no_permission_is_one_clear_error(tmp_path: Path) -> None:
    flags, log = synthetic_flags("demo_teacher@random", 100), tmp_path / "log"
    log.touch()
    job = ForkedJob([*flags, "--store", str(tmp_path / "store")], log=log, entry=main_without_rights)
    text = run_to_end(job, expected=1)
    assert "Permission denied" in text
    assert "Traceback" not in text


def test_an_unreadable_image_stops_the_job_or_is_gray(teacher: str, photo_folder: Path, tmp_path: Path) -> None:
    train = tmp_path / "train"
    for path in sorted(photo_folder.rglob("*.jpg"))[::4]:
        copy = train / path.relative_to(photo_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    flags, store = photo_flags(teacher, train), tmp_path / "store"
    index, _ = scan_folder(train)
    index.save(tmp_path / "train.index.h5")
    spoilt = Path(index.path_of(11))
    spoilt.write_bytes(spoilt.read_bytes()[:200].ljust(spoilt.stat().st_size, b"\0"))
    assert str(spoilt) in fill(flags, store, expected=1)
    assert shards_of(store) == []
    assert leftovers(store) == []
    assert "is unreadable: gray" in fill([*flags, "--on-bad-image", "gray"], store)
    assert len(shards_of(store)) == 1


def test_torchrun(flags: list[str], store: Path, tmp_path: Path) -> None:
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "precompute"]
    run_to_end(CommandJob([*agent, *flags, "--store", str(tmp_path / "store")], log=tmp_path / "log"))
    check_equal(tmp_path / "store", store)
    assert state_of(tmp_path / "store" / "jobs" / "part-1-of-1")["rows"] == 216


def test_a_dry_run_writes_nothing(flags: list[str], tmp_path: Path) -> None:
    text = fill([*flags, "--dry-run"], tmp_path / "store", size=2)
    assert "9 shard(s) to make: 216 rows" in text
    assert not (tmp_path / "store").exists()


def test_plan_writes_nothing(flags: list[str], tmp_path: Path) -> None:
    arguments = ["plan", *flags, "--store", str(tmp_path / "store"), "--views", "0:50", "--probe-batches", "1"]
    text = run_to_end(ForkedJob(arguments, log=tmp_path / "log", entry=main))
    assert "embedding_f16" in text
    assert "the store pays from" in text
    assert "free" in text
    assert not (tmp_path / "store").exists()
    assert not list(Path(flags[3]).parent.glob("*.index.h5"))


def outputs_of(
    teacher: str, source: Source, rows: object, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and embeddings by a teacher in this process, in one batch."""
    options = BackendOptions(resolution=32, num_threads=1, max_batch=len(rows))
    backend = open_backend("torchvision", source, options)
    images = next(iter(backend.stream([rows]))).images
    backend.close()
    network, _ = build_teacher(teacher, num_classes=len(source.index.classes))
    prepare = preparation(mean, std, torch.device("cpu"), torch.channels_last)
    run = TeacherRunner(network, device=torch.device("cpu"), precision="fp32", prepare=prepare, batch=len(rows))
    outputs = run.of_pixels(images)
    return outputs.logits.numpy(), outputs.embedding.numpy()
