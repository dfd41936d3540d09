"""Rows of any shape through shards of any size; and files with any byte changed."""

import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import StoreError
from stores.codec import Codec
from stores.codec_registry import parse_codecs
from stores.index_file import create_store
from stores.layout import ShardKey, shard_keys
from stores.manifest import Manifest
from stores.reader import open_store
from stores.records import PixelRecipe, TeacherRecord
from stores.shard import ShardWriter
from stores.shard_file import LABEL, PLAN_CRC

CLASSES, DIM = 6, 4
KEPT = ("dense_f16", "affine_u8", "topk:2", "embedding_f16", "embedding_u8", "topk:3,embedding_f16,dense_f16")


def make_manifest(codecs: tuple[Codec, ...], num_rows: int, shard_rows: int) -> Manifest:
    return Manifest(
        index_fingerprint="0" * 64,
        num_rows=num_rows,
        classes=tuple("abcdef"),
        policy={"kind": "none"},
        plan_seed=0,
        plan_version=1,
        pixel_recipe=PixelRecipe(),
        teacher=TeacherRecord.from_json({}),
        codecs=tuple(codec.to_json() for codec in codecs),
        shard_rows=shard_rows,
    )


def make_columns(codecs: tuple[Codec, ...], num_rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(num_rows)
    columns = {
        "label": rng.integers(0, CLASSES, num_rows, LABEL.dtype),
        "plan_crc": rng.integers(0, 2**32, num_rows, PLAN_CRC.dtype),
    }
    for codec in codecs:
        columns |= codec.encode(rng.normal(0, 5, (num_rows, codec.width)).astype("<f4"))
    return columns


def write(store: Path, manifest: Manifest, columns: dict[str, np.ndarray], cut: int) -> None:
    """One view, each shard in two pieces, the second one first."""
    for key in shard_keys(0, manifest.num_rows, manifest.shard_rows):
        middle = min(key.start + cut, key.stop)
        with ShardWriter(store, key, manifest, made_with={}) as writer:
            for start, stop in ((middle, key.stop), (key.start, middle)):
                piece = {name: column[start:stop] for name, column in columns.items()}
                writer.write(start - key.start, piece)
            writer.seal()


@settings(max_examples=25)
@given(
    kept=st.sampled_from(KEPT),
    num_rows=st.integers(1, 60),
    shard_rows=st.sampled_from([7, 16, 4096]),
    cut=st.integers(0, 20),
    data=st.data(),
)
def test_rows_there_and_back(kept: str, num_rows: int, shard_rows: int, cut: int, data: st.DataObject) -> None:
    codecs = parse_codecs(kept, num_classes=CLASSES, embedding_dim=DIM)
    columns = make_columns(codecs, num_rows)
    ids = np.array(data.draw(st.lists(st.integers(0, num_rows - 1), max_size=40)), np.int64)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        write(store, create_store(store, make_manifest(codecs, num_rows, shard_rows), None), columns, cut)
        for io in ("mmap", "pread") if num_rows <= shard_rows else ("pread",):
            found = open_store(store, io=io).gather(0, ids)
            assert all(np.array_equal(found[name], column[ids]) for name, column in columns.items())


@pytest.fixture(scope="module")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store, codecs = tmp_path_factory.mktemp("store"), parse_codecs("dense_f16", num_classes=CLASSES, embedding_dim=DIM)
    write(store, create_store(store, make_manifest(codecs, 9, 16), None), make_columns(codecs, 9), 4)
    return store


@settings(max_examples=150)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), io=st.sampled_from(["mmap", "pread"]))
def test_with_any_byte_of_the_file_changed_no_other_rows_are_read(
    small_store: Path, place: float, bit: int, io: str
) -> None:
    path = ShardKey(0, 0, 9).path(small_store)
    written = path.read_bytes()
    damaged = bytearray(written)
    damaged[int(place * len(written))] ^= 1 << bit
    path.write_bytes(damaged)
    columns = make_columns(parse_codecs("dense_f16", num_classes=CLASSES, embedding_dim=DIM), 9)
    found = columns
    with suppress(StoreError):
        found = open_store(small_store, io=io).gather(0, np.arange(9))
    path.write_bytes(written)
    assert all(np.array_equal(found[name], column) for name, column in columns.items())
