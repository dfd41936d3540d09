"""Rows computed again: a store that tells the truth passes, one that does not is named, by view and sample id."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.core.command import run_command
from pipeline.core.errors import ConfigError, StoreError
from pipeline.data.backends.base import BackendOptions, Source
from pipeline.data.backends.registry import open_backend
from pipeline.data.index import Index
from pipeline.data.plan import PLAN_VERSION, Plan
from pipeline.data.policies.registry import get_policy
from precompute.audit import AuditReport, AuditSettings, audit
from precompute.teacher_pass import TeacherPass, build_teacher, fix_numerics
from stores.__main__ import main
from stores.codecs.base import Codec
from stores.codecs.registry import parse_codecs
from stores.index_file import create_store, write_index
from stores.layout import ShardKey, shard_keys
from stores.manifest import Manifest
from stores.shard import ShardWriter

TEACHER, SIDE, BATCH, SHARD_ROWS, VIEWS = "demo_teacher@random", 32, 16, 30, (0, 4)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ALL_CODECS = "dense_f16,affine_u8,topk:2,embedding_f16,embedding_u8"
Rows = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def numerics() -> Iterator[None]:
    """What an audit sets for its process is put back for the other tests."""
    threads, environment = torch.get_num_threads(), dict(os.environ)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.allow_tf32 = True
    for name in set(os.environ) - set(environment):
        del os.environ[name]


def make_store(
    store: Path,
    index: Index,
    *,
    keep: str = "dense_f16",
    views: tuple[int, ...] = VIEWS,
    change: Callable[[int, Rows], None] = lambda view, columns: None,
    **entries: Any,
) -> Manifest:
    """A store of the index's images; `change` may alter a view's columns, whose checksums then are right."""
    fix_numerics(torch.device("cpu"))
    network, weights_sha256 = build_teacher(TEACHER, num_classes=len(index.classes))
    codecs = parse_codecs(keep, num_classes=network.num_classes, embedding_dim=network.embedding_dim)
    teacher = TeacherPass(network, device=torch.device("cpu"), mean=MEAN, std=STD, precision="fp32", batch=BATCH)
    backend = open_backend("torchvision", Source(index), BackendOptions(SIDE, 2, BATCH))
    policy = get_policy("imagenet_train")
    manifest = Manifest(
        index_fingerprint=index.fingerprint,
        num_rows=len(index),
        classes=index.classes,
        policy=policy.to_json(),
        plan_seed=5,
        plan_version=PLAN_VERSION,
        pixel_recipe=backend.pixel_recipe(),
        teacher={
            "name": TEACHER,
            "weights_sha256": weights_sha256,
            "resolution": SIDE,
            "mean": list(MEAN),
            "std": list(STD),
            "precision": "fp32",
            "batch": BATCH,
        },
        codecs=tuple(codec.to_json() for codec in codecs),
        shard_rows=SHARD_ROWS,
    )
    manifest = create_store(store, replace(manifest, **entries), tuple(part.numpy() for part in teacher.head()))
    for view in views:
        rows = Plan(policy, 5).rows(index.ids, np.full(len(index), view), index.widths, index.heights)
        parts = [rows.part(slice(start, start + BATCH)) for start in range(0, len(rows), BATCH)]
        outputs = [teacher.outputs(pixels.images) for pixels in backend.stream(iter(parts))]
        columns = {"label": index.labels.astype("<i4"), "plan_crc": rows.crc().astype("<u4")}
        for codec in codecs:
            columns |= codec.encode(np.concatenate([getattr(part, codec.source).numpy() for part in outputs]))
        change(view, columns)
        write_view(store, view, manifest, codecs, columns)
    backend.close()
    write_index(store)
    return manifest


def write_view(store: Path, view: int, manifest: Manifest, codecs: tuple[Codec, ...], columns: Rows) -> None:
    fields = tuple(field for codec in codecs for field in codec.fields)
    for key in shard_keys(view, manifest.num_rows, manifest.shard_rows):
        with ShardWriter(store, key, manifest, fields, made_with={}) as writer:
            writer.write(0, {name: column[key.start : key.stop].copy() for name, column in columns.items()})
            writer.seal()


def run_audit(store: Path, folder: Path, **settings: Any) -> AuditReport:
    given = {"teacher": TEACHER, "train_dir": folder, "num_rows": 1000, "device": "cpu", "threads": 2, **settings}
    return audit(store, AuditSettings(**given), on_progress=lambda done, total: None)


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
        found = run_audit(tmp_path / "s", photo_folder, num_rows=21, seed=seed).problems
        return {view: {sample for one in found if one.view == view for sample in one.ids} for view in VIEWS}

    assert drawn(1) == drawn(1) != drawn(2)
    assert sorted(len(ids) for ids in drawn(1).values()) == [10, 11]
    assert drawn(1)[0] != drawn(1)[4]


def test_the_noise_floor_widens_the_bound(tmp_path: Path, photo_folder: Path, photo_index: Index) -> None:
    def shift(view: int, columns: Rows) -> None:
        columns["logits"] += np.float16(0.05)

    floor = {"noise_floor": {"max_abs_logit": 0.01, "kl": 1e-6}}
    make_store(tmp_path / "narrow", photo_index, change=shift, views=(0,))
    make_store(tmp_path / "wide", photo_index, change=shift, views=(0,), measured=floor)
    assert len(run_audit(tmp_path / "narrow", photo_folder, num_rows=10).problems) > 0
    assert run_audit(tmp_path / "wide", photo_folder, num_rows=10).problems == []


def test_what_does_not_belong_to_the_store_is_refused_with_both_values(
    tmp_path: Path, photo_folder: Path, val_folder: Path, photo_index: Index
) -> None:
    make_store(tmp_path / "s", photo_index, views=(0,))
    with pytest.raises(StoreError, match=r"the data set must be the store's(.|\n)*store: .*\n  here:  "):
        run_audit(tmp_path / "s", val_folder)
    with pytest.raises(StoreError, match=r"weights of resnet18@random must be the store's(.|\n)*here:  "):
        run_audit(tmp_path / "s", photo_folder, teacher="resnet18@random")
    with pytest.raises(ConfigError, match="no train images were named"):
        run_audit(tmp_path / "s", photo_folder, train_dir=None)
    with pytest.raises(ConfigError, match="--rows must be above 0, got 0"):
        run_audit(tmp_path / "s", photo_folder, num_rows=0)


def test_another_pixel_recipe_is_refused_unless_the_backend_is_named(
    tmp_path: Path, photo_folder: Path, photo_index: Index
) -> None:
    recipe = {"backend": "torchvision", "decode": "otherwise"}
    make_store(tmp_path / "s", photo_index, views=(0,), pixel_recipe=recipe)
    with pytest.raises(StoreError, match=r"pixels were made in another way(.|\n)*store: .*otherwise.*\n  here: .*full"):
        run_audit(tmp_path / "s", photo_folder)
    assert run_audit(tmp_path / "s", photo_folder, backend="torchvision").problems == []


def test_a_store_without_a_complete_view_is_refused(tmp_path: Path, photo_folder: Path, photo_index: Index) -> None:
    make_store(tmp_path / "s", photo_index, views=())
    with pytest.raises(StoreError, match="has no complete view yet"):
        run_audit(tmp_path / "s", photo_folder)


def test_the_command_line_ends_with_0_or_1(
    tmp_path: Path, photo_folder: Path, photo_index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(view: int, columns: Rows) -> None:
        columns["logits"][11] = 3

    flags = ["--train-dir", photo_folder, "--teacher", TEACHER, "--device", "cpu", "--rows"]
    for name, change, rows, code in (("true", None, 32, 0), ("false", spoil, 72, 1)):
        make_store(tmp_path / name, photo_index, views=(0,), change=change or (lambda view, columns: None))
        monkeypatch.setattr(sys, "argv", ["stores", "verify", *map(str, [tmp_path / name, *flags, rows])])
        with pytest.raises(SystemExit) as end:
            run_command(main)
        assert end.value.code == code
