"""Small stores for tests, written by the real writer. Imports no torch: processes that weigh a store use it.

`small_store` is a store by itself, for tests of its files; `fill` is one of a run's teacher, for tests of what a run
reads: its rows are the outputs of the images of `made_index()` in the views of a plan.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.index import Index
from pipeline.data.plan import PLAN_VERSION, Plan
from pipeline.data.policy import get_policy
from stores.codec import Codec
from stores.codec_registry import codec_from_json, parse_codecs
from stores.codecs.dense_f16 import DenseF16
from stores.index_file import create_store, write_index
from stores.layout import ShardKey, shard_keys
from stores.manifest import STORE_VERSION, Manifest
from stores.reader import StoreReader, open_store
from stores.shard import ShardWriter

NUM_ROWS, SHARD_ROWS, NUM_CLASSES = 10, 4, 5

CLASSES, DIM, NUM = 7, 5, 90
POLICY, SEED = "imagenet_train", 11
HEAD = (
    np.random.default_rng(3).normal(size=(CLASSES, DIM)).astype(np.float32),
    np.random.default_rng(4).normal(size=CLASSES).astype(np.float32),
)


def small_manifest(codecs: Iterable[Codec] = (DenseF16(width=NUM_CLASSES),), **changes: Any) -> Manifest:
    entries: dict[str, Any] = {
        "index_fingerprint": "1f" * 32,
        "num_rows": NUM_ROWS,
        "classes": tuple(f"class{label}" for label in range(NUM_CLASSES)),
        "policy": {"kind": "random_resized_crop", "scale": [0.08, 1.0]},
        "plan_seed": 3,
        "plan_version": 1,
        "pixel_recipe": {"backend": "torchvision", "filter": "bilinear"},
        "teacher": {"name": "resnet18@random", "weights_sha256": "ab" * 32, "precision": "fp32", "mean": [0.5, 0.5]},
        "codecs": tuple(codec.to_json() for codec in codecs),
        "shard_rows": SHARD_ROWS,
        "measured": {"top1": {"top1": 73.3}, "noise_floor": {"kl": 1e-9, "max_abs": 2e-5}},
        "made_with": {"torch": "2.9"},
    }
    return Manifest.from_text(json.dumps({"version": STORE_VERSION, **entries, **changes}), "the small manifest")


def teacher_rows(codec: Codec, view: int, ids: np.ndarray) -> np.ndarray:
    """(B, width) float32 that depend on view and id only."""
    return np.stack([np.random.default_rng((view, sample)).normal(0, 4, codec.width) for sample in ids]).astype("<f4")


def rows_of(codecs: Iterable[Codec], view: int, ids: np.ndarray) -> dict[str, np.ndarray]:
    """All columns of a shard but row_crc."""
    columns = {"label": (ids % NUM_CLASSES).astype("<i4"), "plan_crc": (ids * 7919 + view).astype("<u4")}
    for codec in codecs:
        columns |= codec.encode(teacher_rows(codec, view, ids))
    return columns


def write_shard(store: Path, key: ShardKey, manifest: Manifest, codecs: Iterable[Codec]) -> None:
    with ShardWriter(store, key, manifest, made_with={"test": True}) as writer:
        writer.write(0, rows_of(codecs, key.view, np.arange(key.start, key.stop)))
        writer.seal()


def small_store(
    store: Path,
    views: Iterable[int] = (0, 1),
    codecs: tuple[Codec, ...] = (DenseF16(width=NUM_CLASSES),),
    head: tuple[np.ndarray, np.ndarray] | None = None,
    **changes: Any,
) -> Manifest:
    """A store of complete views, with its index."""
    manifest = create_store(store, small_manifest(codecs, **changes), head)
    for view in views:
        for key in shard_keys(view, manifest.num_rows, manifest.shard_rows):
            write_shard(store, key, manifest, codecs)
    write_index(store)
    return manifest


def made_index() -> Index:
    """The images of `fill`."""
    from pipeline.data.backends.synthetic import synthetic_index  # brings torch

    return synthetic_index(NUM, CLASSES)


def embedding(view: int) -> np.ndarray:
    """What a teacher might say of every sample."""
    return np.random.default_rng(view).normal(size=(NUM, DIM)).astype(np.float32) * 3


def logits(view: int) -> np.ndarray:
    return embedding(view) @ HEAD[0].T + HEAD[1]


def manifest(keep: str, index: Index | None = None, plan_seed: int = SEED) -> Manifest:
    """That of a run's teacher on the images of `index`, or on those of `made_index()`."""
    index = index or made_index()
    return small_manifest(
        parse_codecs(keep, num_classes=CLASSES, embedding_dim=DIM),
        index_fingerprint=index.fingerprint,
        num_rows=len(index),
        classes=index.classes,
        policy=get_policy(POLICY).to_json(),
        plan_seed=plan_seed,
        plan_version=PLAN_VERSION,
        pixel_recipe={"backend": "synthetic"},
        teacher={"name": "demo_teacher@random", "resolution": 32, "weights_sha256": "0" * 64},
        shard_rows=40,
        measured={},
        made_with={},
    )


def fill(
    store: Path,
    keep: str,
    *,
    views: tuple[int, ...] = (0, 1),
    wrong_label: int | None = None,
    wrong_plan: int | None = None,
) -> StoreReader:
    """A store with these views; one row may carry another label or plan."""
    described, index = create_store(store, manifest(keep), HEAD if "embedding" in keep else None), made_index()
    codecs = [codec_from_json(codec) for codec in described.codecs]
    for view in views:
        rows = {"logits": logits(view), "embedding": embedding(view)}
        plan = Plan(get_policy(POLICY), SEED).rows(index.ids, np.full(NUM, view), index.widths, index.heights).crc()
        labels = index.labels.astype(np.int32)
        for array, at in ((labels, wrong_label), (plan, wrong_plan)):
            if at is not None:
                array[at] += 1
        columns = {"label": labels, "plan_crc": plan}
        for codec in codecs:
            columns |= codec.encode(rows[codec.source])
        for key in shard_keys(view, NUM, described.shard_rows):
            with ShardWriter(store, key, described, made_with={}) as writer:
                writer.write(0, {name: column[key.start : key.stop] for name, column in columns.items()})
                writer.seal()
    return open_store(store)


def flip(path: Path, offset: int, mask: int = 0x10) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ mask]))
