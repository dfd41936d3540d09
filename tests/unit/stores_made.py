"""Small stores with known contents, written by the real writer, for tests of what reads them."""

from pathlib import Path

import numpy as np

from pipeline.data.backends.synthetic import synthetic_index
from pipeline.data.index import Index
from pipeline.data.plan import PLAN_VERSION, Plan
from pipeline.data.policy import get_policy
from stores.codec_registry import codec_from_json, parse_codecs
from stores.index_file import create_store
from stores.layout import shard_keys
from stores.manifest import Manifest
from stores.reader import StoreReader, open_store
from stores.records import PixelRecipe, TeacherRecord
from stores.shard import ShardWriter

CLASSES, DIM, NUM = 7, 5, 90
POLICY, SEED = "imagenet_train", 11
INDEX = synthetic_index(NUM, CLASSES)
HEAD = (
    np.random.default_rng(3).normal(size=(CLASSES, DIM)).astype(np.float32),
    np.random.default_rng(4).normal(size=CLASSES).astype(np.float32),
)


def embedding(view: int) -> np.ndarray:
    """What a teacher might say of every sample."""
    return np.random.default_rng(view).normal(size=(NUM, DIM)).astype(np.float32) * 3


def logits(view: int) -> np.ndarray:
    return embedding(view) @ HEAD[0].T + HEAD[1]


def manifest(keep: str, index: Index = INDEX, plan_seed: int = SEED) -> Manifest:
    codecs = parse_codecs(keep, num_classes=CLASSES, embedding_dim=DIM)
    return Manifest(
        index_fingerprint=index.fingerprint,
        num_rows=len(index),
        classes=index.classes,
        policy=get_policy(POLICY).to_json(),
        plan_seed=plan_seed,
        plan_version=PLAN_VERSION,
        pixel_recipe=PixelRecipe(backend="synthetic"),
        teacher=TeacherRecord.from_json({"name": "demo_teacher@random", "resolution": 32, "weights_sha256": "0" * 64}),
        codecs=tuple(codec.to_json() for codec in codecs),
        shard_rows=40,
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
    described = create_store(store, manifest(keep), HEAD if "embedding" in keep else None)
    codecs = [codec_from_json(codec) for codec in described.codecs]
    fields = tuple(field for codec in codecs for field in codec.fields)
    for view in views:
        rows = {"logits": logits(view), "embedding": embedding(view)}
        plan = Plan(get_policy(POLICY), SEED).rows(INDEX.ids, np.full(NUM, view), INDEX.widths, INDEX.heights).crc()
        labels = INDEX.labels.astype(np.int32)
        for array, at in ((labels, wrong_label), (plan, wrong_plan)):
            if at is not None:
                array[at] += 1
        columns = {"label": labels, "plan_crc": plan}
        for codec in codecs:
            columns |= codec.encode(rows[codec.source])
        for key in shard_keys(view, NUM, described.shard_rows):
            with ShardWriter(store, key, described, fields, made_with={}) as writer:
                writer.write(0, {name: column[key.start : key.stop] for name, column in columns.items()})
                writer.seal()
    return open_store(store)
