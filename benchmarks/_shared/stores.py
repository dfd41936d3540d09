"""Stores of generated logits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stores.codecs.dense_f16 import DenseF16
from stores.layout import ShardKey
from stores.manifest import Manifest
from stores.records import PixelRecipe, TeacherRecord
from stores.shard import ShardWriter

Columns = Callable[[slice], dict[str, Any]]  # of a range of the view's rows


def manifest_of(num_rows: int, num_classes: int, shard_rows: int) -> Manifest:
    """Of dense logits that no teacher has given."""
    return Manifest(
        index_fingerprint="0" * 64,
        num_rows=num_rows,
        classes=tuple(f"n{label:08d}" for label in range(num_classes)),
        policy={},
        plan_seed=0,
        plan_version=1,
        pixel_recipe=PixelRecipe(),
        teacher=TeacherRecord.from_json({}),
        codecs=(DenseF16(width=num_classes).to_json(),),
        shard_rows=shard_rows,
    )


def write_shard(store: Path, key: ShardKey, manifest: Manifest, batch: int, columns: Columns) -> None:
    """Write one shard, `batch` rows at a time."""
    with ShardWriter(store, key, manifest, made_with={}) as writer:
        for start in range(key.start, key.stop, batch):
            writer.write(start - key.start, columns(slice(start, min(start + batch, key.stop))))
        writer.seal()
