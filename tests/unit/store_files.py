"""Small stores for tests."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from stores.codec import Codec
from stores.codecs.dense_f16 import DenseF16
from stores.index_file import create_store, write_index
from stores.layout import ShardKey, shard_keys
from stores.manifest import STORE_VERSION, Manifest
from stores.shard import ShardWriter
from stores.virtual import payload_fields

NUM_ROWS, SHARD_ROWS, NUM_CLASSES = 10, 4, 5


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
    with ShardWriter(store, key, manifest, payload_fields(manifest), made_with={"test": True}) as writer:
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


def flip(path: Path, offset: int, mask: int = 0x10) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ mask]))
