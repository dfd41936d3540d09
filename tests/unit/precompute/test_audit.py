"""Rows computed again: a store that tells the truth passes, one that does not is named, by view and sample id."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import Files, RunConfig, Running, Teaching, TrainImages
from pipeline.core.command import run_command
from pipeline.core.errors import ConfigError, StoreError
from pipeline.data.backend import BackendOptions, Source, open_backend, resolve_backend
from pipeline.data.backends.dali import DaliBackend
from pipeline.data.index import Index
from pipeline.data.plan import PLAN_VERSION, Plan
from pipeline.data.policy import get_policy
from pipeline.devices.numerics import fixed_numerics, set_kernels
from pipeline.devices.world import World
from pipeline.teachers.choice import StoredViews
from pipeline.teachers.foreign_pixels import check_pixels
from pipeline.teachers.rebuild import build_teacher, rebuild, run_as_recorded
from pipeline.teachers.recompute import NEGLIGIBLE, allowed_divergence
from precompute.__main__ import main
from precompute.audit import Audit, AuditReport, open_audit
from precompute.config import AuditConfig
from stores.codec_registry import parse_codecs
from stores.index_file import create_store, write_index
from stores.layout import ShardKey, shard_keys
from stores.manifest import Manifest
from stores.outputs import StoreOutputs, pick_outputs
from stores.reader import open_store
from stores.records import Measured, PixelRecipe, TeacherRecord
from stores.shard import ShardWriter

TEACHER, SIDE, BATCH, SHARD_ROWS, VIEWS = "demo_teacher@random", 32, 16, 30, (0, 4)
TEACHER_OF_IMAGES = "resnet18@random"  # tells pixels apart; demo_teacher's random logits hardly depend on them
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ALL_CODECS = "dense_f16,affine_u8,topk:2,embedding_f16,embedding_u8"
Rows = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def numerics() -> Iterator[None]:
    """What an audit sets for its process is put back for the other tests."""
    with fixed_numerics(torch.device("cpu")):
        yield


def make_store(
    store: Path,
    index: Index,
    *,
    keep: str = "dense_f16",
    views: tuple[int, ...] = VIEWS,
    teacher_name: str = TEACHER,
    change: Callable[[int, Rows], None] = lambda view, columns: None,
    **entries: Any,
) -> Manifest:
    """A store of the index's images; `change` may alter a view's columns, whose checksums then are right."""
    network, weights_sha256 = build_teacher(teacher_name, num_classes=len(index.classes))
    codecs = parse_codecs(keep, num_classes=network.num_classes, embedding_dim=network.embedding_dim)
    record = TeacherRecord(
        name=teacher_name,
        weights_sha256=weights_sha256,
        resolution=SIDE,
        mean=MEAN,
        std=STD,
        precision="fp32",
        batch=BATCH,
    )
    teacher = run_as_recorded(network, record, torch.device("cpu"))
    backend = open_backend("torchvision", Source(index), BackendOptions(SIDE, 2, BATCH))
    policy = get_policy("imagenet_train")
    manifest = Manifest(
        index_fingerprint=index.fingerprint,
        num_rows=len(index),
        classes=index.classes,
        policy=policy.to_json(),
        plan_seed=5,
        plan_version=PLAN_VERSION,
        pixel_recipe=PixelRecipe.from_json(backend.pixel_recipe()),
        teacher=record,
        codecs=tuple(codec.to_json() for codec in codecs),
        shard_rows=SHARD_ROWS,
    )
    manifest = create_store(store, replace(manifest, **entries), tuple(part.numpy() for part in teacher.head()))
    for view in views:
        rows = Plan(policy, 5).rows(index.ids, np.full(len(index), view), index.widths, index.heights)
        parts = [rows.part(slice(start, start + BATCH)) for start in range(0, len(rows), BATCH)]
        outputs = [teacher.of_pixels(pixels.images) for pixels in backend.stream(iter(parts))]
        columns = {"label": index.labels.astype("<i4"), "plan_crc": rows.crc().astype("<u4")}
        for codec in codecs:
            columns |= codec.encode(np.concatenate([getattr(part, codec.source).numpy() for part in outputs]))
        change(view, columns)
        write_view(store, view, manifest, columns)
    backend.close()
    write_index(store)
    return manifest


def write_view(store: Path, view: int, manifest: Manifest, columns: Rows) -> None:
    for key in shard_keys(view, manifest.num_rows, manifest.shard_rows):
        with ShardWriter(store, key, manifest, made_with={}) as writer:
            writer.write(0, {name: column[key.start : key.stop].copy() for name, column in columns.items()})
            writer.seal()


def run_audit(store: Path, folder: Path, **settings: Any) -> AuditReport:
    images = TrainImages(train_dir=folder)
    given = {"teacher": TEACHER, "images": images, "rows": 1000, "device": "cpu", "threads": 2, **settings}
    with open_audit(store, AuditConfig(**given)) as opened:
        return opened.compare(lambda done, total: None)


def test_a_true_store_of_all_codecs_passes(tmp_path: Path, photo_folder: Path, photo_index: Index) -> None:
    make_store(tmp_path / "s", photo_index, keep=ALL_CODECS)
    report = run_audit(tmp_path / "s", photo_folder)
    assert report.problems == []
    assert report.num_rows == 2 * len(photo_index)
    assert [one.codec for one in report.figures] == [word.partition(":")[0] for word in ALL_CODECS.split(",")]
    dense, topk = report.figures[0], report.figures[2]
    assert 0 < dense.max_abs <= dense.allowed < 2e-3
    assert dense.kl_max < 1e-5
    assert np.isfinite(topk.allowed)
    assert "dense_f16: nearest to its bound: off by" in "\n".join(report.lines())


@pytest.mark.parametrize("keep", ["dense_f16", "affine_u8", "topk:2", "embedding_f16", "embedding_u8"])
def test_a_row_that_is_another_ones_is_named(tmp_path: Path, photo_folder: Path, photo_index: Index, keep: str) -> None:
    def swap(view: int, columns: Rows) -> None:
        for name, column in columns.items():
            if view == 4 and name not in ("label", "plan_crc"):
                column[37] = column[3]

    make_store(tmp_path / "s", photo_index, keep=keep, change=swap)
    (found,) = run_audit(tmp_path / "s", photo_folder).problems
    assert (found.path, found.view, found.ids) == (ShardKey(4, 30, 60).path(tmp_path / "s"), 4, (37,))
    assert "logits are not the teacher's on these pixels" in found.message


def test_a_tail_that_is_wrong_is_named(tmp_path: Path, photo_folder: Path, photo_index: Index) -> None:
    def shrink(view: int, columns: Rows) -> None:
        columns["topk_tail_mass"][8] *= 0.9

    make_store(tmp_path / "s", photo_index, keep="topk:2", views=(0,), change=shrink)
    (found,) = run_audit(tmp_path / "s", photo_folder).problems
    assert found.ids == (8,)


def test_wrong_labels_and_plans_are_named(tmp_path: Path, photo_folder: Path, photo_index: Index) -> None:
    def change(view: int, columns: Rows) -> None:
        if view == 0:
            columns["label"][[2, 40]] = (columns["label"][[2, 40]] + 1) % 4
            columns["plan_crc"][71] ^= 1

    make_store(tmp_path / "s", photo_index, change=change)
    found = run_audit(tmp_path / "s", photo_folder).problems
    assert [(one.message.partition(" is")[0], one.ids) for one in found] == [
        ("the label", (2,)),
        ("the label", (40,)),
        ("the view", (71,)),
    ]


def test_rows_are_drawn_by_the_seed_evenly_over_views(tmp_path: Path, photo_folder: Path, photo_index: Index) -> None:
    def spoil(view: int, columns: Rows) -> None:
        columns["label"][:] = (columns["label"] + 1) % 4

    make_store(tmp_path / "s", photo_index, change=spoil)

    def drawn(seed: int) -> dict[int, set[int]]:
        found = run_audit(tmp_path / "s", photo_folder, rows=21, seed=seed).problems
        return {view: {sample for one in found if one.view == view for sample in one.ids} for view in VIEWS}

    assert drawn(1) == drawn(1) != drawn(2)
    assert sorted(len(ids) for ids in drawn(1).values()) == [10, 11]
    assert drawn(1)[0] != drawn(1)[4]


def test_the_noise_floor_widens_the_bound(tmp_path: Path, photo_folder: Path, photo_index: Index) -> None:
    def shift(view: int, columns: Rows) -> None:
        columns["logits"] += np.float16(0.05)

    floor = Measured.from_json({"noise_floor": {"max_abs_logit": 0.01, "kl": 1e-6}})
    make_store(tmp_path / "narrow", photo_index, change=shift, views=(0,))
    make_store(tmp_path / "wide", photo_index, change=shift, views=(0,), measured=floor)
    assert len(run_audit(tmp_path / "narrow", photo_folder, rows=10).problems) > 0
    assert run_audit(tmp_path / "wide", photo_folder, rows=10).problems == []


def test_what_does_not_belong_to_the_store_is_refused_with_both_values(
    tmp_path: Path, photo_folder: Path, val_folder: Path, photo_index: Index
) -> None:
    make_store(tmp_path / "s", photo_index, views=(0,))
    with pytest.raises(StoreError, match=r"the data set must be the store's(.|\n)*store: .*\n  here:  "):
        run_audit(tmp_path / "s", val_folder)
    with pytest.raises(StoreError, match=r"weights of resnet18@random must be the store's(.|\n)*here:  "):
        run_audit(tmp_path / "s", photo_folder, teacher="resnet18@random")
    with pytest.raises(ConfigError, match="no train images were named"):
        run_audit(tmp_path / "s", photo_folder, images=TrainImages())
    with pytest.raises(ConfigError, match="--rows must be above 0, got 0"):
        run_audit(tmp_path / "s", photo_folder, rows=0)


def test_another_pixel_recipe_is_refused_unless_the_backend_is_named(
    tmp_path: Path, photo_folder: Path, photo_index: Index
) -> None:
    recipe = PixelRecipe.from_json({"backend": "torchvision", "decode": "otherwise"})
    make_store(tmp_path / "s", photo_index, views=(0,), pixel_recipe=recipe)
    with pytest.raises(StoreError, match=r"pixels were made in another way(.|\n)*store: .*otherwise.*\n  here: .*full"):
        run_audit(tmp_path / "s", photo_folder)
    (note,) = run_audit(tmp_path / "s", photo_folder, backend="torchvision").problems
    assert note.kind == "note"
    assert "otherwise" in note.message


def test_another_decoder_of_the_same_backend_is_compared_by_divergence(
    tmp_path: Path, photo_folder: Path, photo_index: Index
) -> None:
    older = {"backend": "torchvision", "decode": "full", "resize": "bilinear, antialias, uint8", "copy": None}
    make_store(
        tmp_path / "s",
        photo_index,
        views=(0,),
        pixel_recipe=PixelRecipe.from_json(older),
        teacher_name=TEACHER_OF_IMAGES,
    )
    report = run_audit(tmp_path / "s", photo_folder, teacher=TEACHER_OF_IMAGES)
    assert [problem.kind for problem in report.problems] == ["note"]
    assert report.figures[0].kl_mean < report.allowed_kl[0]


@pytest.mark.parametrize("keep", ["dense_f16", "embedding_f16"])
def test_on_another_backends_pixels_rows_are_compared_by_divergence(
    tmp_path: Path, photo_folder: Path, photo_index: Index, keep: str
) -> None:
    """Another backend's pixels move logits beyond the codec's bound, and a store of them is intact all the same."""
    if resolve_backend("dali").missing() is not None:
        pytest.skip("needs a second backend")

    def spoil(view: int, columns: Rows) -> None:
        for name in ("logits", "embedding"):
            if view == 4 and name in columns:
                columns[name][37] = 30 * np.arange(columns[name].shape[1]) % 7

    name = TEACHER_OF_IMAGES
    make_store(tmp_path / "true", photo_index, keep=keep, teacher_name=name)
    make_store(tmp_path / "false", photo_index, keep=keep, teacher_name=name, change=spoil)
    found = run_audit(tmp_path / "true", photo_folder, teacher=name, backend="dali")
    assert [problem.kind for problem in found.problems] == ["note"]
    assert found.figures[0].max_abs > found.figures[0].allowed, "logits alone would not do"
    assert found.figures[0].kl_mean < found.allowed_kl[0] == 1e-5
    assert "KL mean" in "\n".join(found.lines())

    note, mean, row = run_audit(tmp_path / "false", photo_folder, teacher=name, backend="dali").problems
    assert note.kind == "note"
    assert mean.ids == ()
    assert (row.path, row.view, row.ids) == (ShardKey(4, 30, 60).path(tmp_path / "false"), 4, (37,))
    assert "may be intact: its pixels were made by torchvision, those here by dali" in mean.message


def test_the_allowance_of_other_pixels_is_never_less_than_negligible(photo_index: Index, tmp_path: Path) -> None:
    costs = {"dense_f16": {"kl": 1e-8}, "affine_u8": {"kl": 3e-6}}
    measured = Measured.from_json({"codecs": costs, "noise_floor": {"kl": 0}})
    manifest = make_store(tmp_path / "s", photo_index, views=(), measured=measured)
    assert allowed_divergence(manifest, ["dense_f16"]) == NEGLIGIBLE == 1e-5
    assert allowed_divergence(manifest, ["dense_f16", "affine_u8"]) == pytest.approx(3e-5)
    noisy = replace(manifest, measured=Measured.from_json({"noise_floor": {"kl": 2e-6}}))
    assert allowed_divergence(noisy, ["dense_f16"]) == pytest.approx(2e-5)


@pytest.mark.parametrize("keep", ["affine_u8", "embedding_u8"])
def test_training_asks_what_an_audit_asks_and_gets_the_same_answer(
    tmp_path: Path, photo_folder: Path, photo_index: Index, capsys: pytest.CaptureFixture[str], keep: str
) -> None:
    """In the store's batches and numerics, whatever the run has set for itself, and has again afterwards."""
    cpu, foreign = torch.device("cpu"), PixelRecipe(backend="torchvision")
    make_store(tmp_path / "s", photo_index, views=(0,), keep=keep, pixel_recipe=foreign, teacher_name=TEACHER_OF_IMAGES)
    reader, source = open_store(tmp_path / "s"), Source(photo_index)
    outputs = pick_outputs(reader, frozenset({"logits"}), lambda num: None)
    assert isinstance(outputs, StoreOutputs)
    stored = StoredViews(reader, outputs.logits_codec, outputs.embedding_codec, outputs.head, frozenset({0}))
    config = RunConfig(
        recipe="test",
        student="demo_student",
        teacher=TEACHER_OF_IMAGES,
        method="kd",
        files=Files(out=tmp_path),
        running=Running(backend="torchvision"),
    )
    set_kernels(deterministic=False, precision="bf16")
    torch.set_num_threads(2)
    with closing(open_backend("torchvision", source, BackendOptions(SIDE, 2, BATCH))) as backend:
        loader: Any = SimpleNamespace(backend=backend)
        check_pixels(config, stored, source, loader, World(0, 1, cpu, 2))
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (2, False)
        with fixed_numerics(cpu):
            ids = photo_index.ids[np.arange(64) * len(photo_index) // 64]
            teacher = rebuild(reader.manifest, cpu)
            audit = Audit(reader, (np.zeros(64, np.int64), ids), photo_index, backend, teacher)
            report = audit.compare(lambda done, total: None)
    (figures,), (allowed,) = report.figures, report.allowed_kl
    assert f"mean KL {figures.kl_mean:.3g}, allowed {allowed:.3g}\n" in capsys.readouterr().out
    strict = replace(config, teaching=Teaching(max_divergence=0.0))
    with pytest.raises(StoreError, match=rf"mean KL {figures.kl_mean:.3g} over 64 rows, 0 is allowed"):
        check_pixels(strict, stored, source, loader, World(0, 1, cpu, 2))


def test_a_store_without_a_complete_view_is_refused(tmp_path: Path, photo_folder: Path, photo_index: Index) -> None:
    make_store(tmp_path / "s", photo_index, views=())
    with pytest.raises(StoreError, match="has no complete view yet"):
        run_audit(tmp_path / "s", photo_folder)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ([], 2, "no train images were named"),
        (["--rows", "0"], 2, "--rows must be above 0, got 0"),
        (["--threads", "0"], 2, "--threads must be above 0, got 0"),
        (["--seed", "-1"], 2, "--seed must be 0 or more and below 4294967296, got -1"),
        (["--backend", "ffvc"], 2, "Did you mean 'ffcv'?"),
        (["--teacher", "resnet81@random"], 2, "unknown model 'resnet81'"),
        (["--teacher", "resnet18@random"], 1, "weights of resnet18@random must be the store's"),
        (["--train-dir", "/nowhere"], 1, "no such folder"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_the_checksums(
    tmp_path: Path,
    photo_index: Index,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    code: int,
    words: str,
) -> None:
    """They read the whole store, which takes hours."""
    make_store(tmp_path / "s", photo_index, views=(0,))
    given = ["--teacher", TEACHER, "--device", "cpu", *flags]
    monkeypatch.setattr(sys, "argv", ["precompute", "audit", str(tmp_path / "s"), *given])
    with pytest.raises(SystemExit) as end:
        run_command(main)
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (code, "")
    assert words in said.err


def test_a_backend_that_is_not_installed_is_refused_with_the_way_out(
    tmp_path: Path, photo_folder: Path, photo_index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path / "s", photo_index, views=(0,), pixel_recipe=PixelRecipe(backend="dali"))
    monkeypatch.setattr(DaliBackend, "missing", lambda: "dali is not installed")
    with pytest.raises(ConfigError, match=r"were made by dali. dali is not installed\nOr give another --backend"):
        run_audit(tmp_path / "s", photo_folder)
    with pytest.raises(ConfigError, match=r"^dali is not installed$"):
        run_audit(tmp_path / "s", photo_folder, backend="dali")


def test_the_command_line_ends_with_0_or_1(
    tmp_path: Path, photo_folder: Path, photo_index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(view: int, columns: Rows) -> None:
        columns["logits"][11] = 3

    flags = ["--train-dir", photo_folder, "--teacher", TEACHER, "--device", "cpu", "--rows"]
    for name, change, rows, code in (("true", None, 32, 0), ("false", spoil, 72, 1)):
        make_store(tmp_path / name, photo_index, views=(0,), change=change or (lambda view, columns: None))
        monkeypatch.setattr(sys, "argv", ["precompute", "audit", *map(str, [tmp_path / name, *flags, rows])])
        with pytest.raises(SystemExit) as end:
            run_command(main)
        assert end.value.code == code
