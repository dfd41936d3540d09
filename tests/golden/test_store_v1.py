"""Stores of format version 1 as they were written: every later program must read them, to the last bit.

`python tests/golden/test_store_v1.py` has written them. Never write them anew for a program that cannot read them: a
changed format is a new version, with a folder of its own beside this one.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from stores.codec import Codec
from stores.codec_registry import codec_ids, parse_codecs
from stores.index_file import create_store, read_head, write_index
from stores.layout import shard_keys
from stores.manifest import Manifest
from stores.reader import open_store
from stores.shard import ShardWriter
from stores.verify import verify_store

FOLDER = Path(__file__).with_name("store_v1")
NUM_ROWS, NUM_CLASSES, WIDTH, VIEW = 6, 7, 5, 3
# name of the folder: codecs, rows of a shard
STORES = {
    "dense_f16": ("dense_f16", 6),
    "affine_u8": ("affine_u8", 6),
    "topk": ("topk:2", 6),
    "embedding_f16": ("embedding_f16", 6),
    "embedding_u8": ("embedding_u8", 6),
    "two_codecs": ("embedding_f16,topk:3", 4),
}
WHAT_IT_MEANS = (
    "stores that people have on disk are not read as they were written.\n"
    "Find the change and take it back, or give the new format a version of its own (stores/manifest.py)."
)


def written(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("io", ["auto", "pread"])
@pytest.mark.parametrize("name", STORES)
def test_rows_are_read_as_they_were_written(name: str, io: Any) -> None:
    expected, reader = written(name), open_store(FOLDER / name, io=io)
    assert reader.complete_views() == [VIEW]
    ids = np.array([5, 0, 3, 3, 1, 4, 2])
    columns = reader.gather(VIEW, ids)
    assert set(columns) == set(expected["fields"])
    for field, rows in expected["fields"].items():
        assert np.array_equal(columns[field], np.array(rows, columns[field].dtype)[ids]), f"{field}: {WHAT_IT_MEANS}"


@pytest.mark.parametrize("name", STORES)
def test_rows_are_decoded_as_they_were(name: str) -> None:
    expected, reader = written(name), open_store(FOLDER / name)
    columns = reader.gather(VIEW, np.arange(NUM_ROWS))
    for codec in reader.codecs:
        decoded = codec.decode({field.name: columns[field.name] for field in codec.fields})
        # logarithms (topk) may differ in the last bit between libraries
        assert np.allclose(decoded, expected["decoded"][codec.id], rtol=3e-7, atol=0), WHAT_IT_MEANS


@pytest.mark.parametrize("name", STORES)
def test_rows_are_encoded_as_they_were(name: str) -> None:
    expected = written(name)
    for codec in open_store(FOLDER / name).codecs:
        for field, rows in codec.encode(source_rows(codec)).items():
            assert np.allclose(rows, np.array(expected["fields"][field]), rtol=3e-7, atol=0), f"{field} of {codec.id}"


@pytest.mark.parametrize("name", STORES)
def test_the_manifest_is_what_it_was(name: str) -> None:
    manifest = open_store(FOLDER / name).manifest
    assert json.loads(manifest.to_text()) == written(name)["manifest"], WHAT_IT_MEANS
    assert manifest.fingerprint() == written(name)["fingerprint"], WHAT_IT_MEANS


@pytest.mark.parametrize("name", STORES)
def test_nothing_is_wrong_with_them(name: str) -> None:
    found = verify_store(FOLDER / name, on_progress=lambda done, total: None)
    assert found == [], WHAT_IT_MEANS


@pytest.mark.parametrize("name", STORES)
def test_h5py_alone_reads_them(name: str) -> None:
    with h5py.File(FOLDER / name / "store.h5", "r") as file:
        assert file[f"views/{VIEW}"].attrs["complete"] == 1
        for field, rows in written(name)["fields"].items():
            assert np.array_equal(file[f"views/{VIEW}/{field}"][:].astype(np.float64), np.array(rows, np.float64))


def test_the_head_is_what_it_was() -> None:
    head = read_head(FOLDER / "embedding_f16")
    assert head is not None
    assert all(np.array_equal(part, wanted) for part, wanted in zip(head, source_head(), strict=True))


def test_every_codec_has_a_store() -> None:
    assert set(codec_ids()) <= set(STORES), f"record the new codec's: add it to STORES and run {Path(__file__).name}"
    assert sorted(STORES) == sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


def source_rows(codec: Codec) -> np.ndarray:
    """(6, width) float32 without random numbers: large, small, negative, equal ones; the last row is constant."""
    places = np.arange(NUM_ROWS * codec.width).reshape(NUM_ROWS, codec.width)
    rows = ((places * 37 % 101) - 50) / np.float32(7)
    rows[1] *= 1e-3
    rows[2, ::2] = 1.5
    rows[-1] = -2.625
    return rows.astype("<f4")


def source_head() -> tuple[np.ndarray, np.ndarray]:
    weight = (np.arange(NUM_CLASSES * WIDTH).reshape(NUM_CLASSES, WIDTH) % 11 - 5) / np.float32(8)
    return weight.astype("<f4"), (np.arange(NUM_CLASSES) / np.float32(4)).astype("<f4")


def source_manifest(codecs: tuple[Codec, ...], shard_rows: int) -> Manifest:
    return Manifest(
        index_fingerprint="0123456789abcdef" * 4,
        num_rows=NUM_ROWS,
        classes=tuple(f"n{label:08d}" for label in range(NUM_CLASSES)),
        policy={"kind": "random_resized_crop", "area": [0.08, 1.0], "flip": 0.5, "ratio": [0.75, 1.3333333333333333]},
        plan_seed=11,
        plan_version=1,
        pixel_recipe={"backend": "torchvision", "decode": "full", "resize": "bilinear, antialias, uint8", "copy": None},
        teacher={"name": "resnet18@random", "weights_sha256": "89abcdef01234567" * 4, "resolution": 224},
        codecs=tuple(codec.to_json() for codec in codecs),
        shard_rows=shard_rows,
        measured={"top1": {"top1": 73.3}, "noise_floor": {"kl": 1e-9}},
        made_with={"torch": "2.9"},
    )


def record(name: str) -> None:
    keep, shard_rows = STORES[name]
    codecs = parse_codecs(keep, num_classes=NUM_CLASSES, embedding_dim=WIDTH)
    head = source_head() if "embedding" in keep else None
    manifest = create_store(FOLDER / name, source_manifest(codecs, shard_rows), head)
    columns: dict[str, np.ndarray] = {
        "label": (np.arange(NUM_ROWS) * 3 % NUM_CLASSES).astype("<i4"),
        "plan_crc": (np.arange(NUM_ROWS) * 2654435761 % 2**32).astype("<u4"),
    }
    for codec in codecs:
        columns |= codec.encode(source_rows(codec))
    for key in shard_keys(VIEW, NUM_ROWS, shard_rows):
        with ShardWriter(FOLDER / name, key, manifest, made_with={"torch": "2.9"}) as writer:
            writer.write(0, {field: rows[key.start : key.stop] for field, rows in columns.items()})
            writer.seal()
    write_index(FOLDER / name)
    decoded = {codec.id: codec.decode({field.name: columns[field.name] for field in codec.fields}) for codec in codecs}
    expected = {
        "manifest": json.loads(manifest.to_text()),
        "fingerprint": manifest.fingerprint(),
        "fields": {field: rows.tolist() for field, rows in columns.items()},
        "decoded": {codec: rows.tolist() for codec, rows in decoded.items()},
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for missing in (name for name in STORES if not (FOLDER / name).exists()):
        record(missing)
