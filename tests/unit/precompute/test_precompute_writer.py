"""The writing thread: shards are sealed with their last piece, dropped otherwise, and its errors come out."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import StoreError
from pipeline.data.plan import PlanRows
from precompute.writer import BackgroundWriter, Piece
from stores.codecs.dense_f16 import DenseF16
from stores.layout import ShardKey
from stores.manifest import Manifest
from stores.reader import open_store
from stores.records import PixelRecipe, TeacherRecord

CODEC = DenseF16(width=3)
KEY = ShardKey(2, 4, 10)
MANIFEST = Manifest(
    index_fingerprint="0",
    num_rows=10,
    classes=("a", "b", "c"),
    policy={},
    plan_seed=0,
    plan_version=1,
    pixel_recipe=PixelRecipe(),
    teacher=TeacherRecord.from_json({}),
    codecs=(CODEC.to_json(),),
    shard_rows=4,
)


def piece(start: int, stop: int, *, fill: float = 1.0, key: ShardKey = KEY) -> Piece:
    ids = np.arange(start, stop)
    rows = PlanRows(ids, ids * 0 + key.view, np.tile(np.int32([0, 0, 8, 8]), (len(ids), 1)), ids % 2 == 0)
    logits = np.full((len(ids), 3), fill, np.float32) * ids[:, None].astype(np.float32)
    return Piece(key, rows, (ids % 3).astype(np.int32), {"logits": logits})


class Counts:
    def __init__(self) -> None:
        self.rows, self.num_bytes, self.shards = 0, 0, 0

    def add(self, rows: int, num_bytes: int, sealed: bool) -> None:
        self.rows, self.num_bytes, self.shards = self.rows + rows, self.num_bytes + num_bytes, self.shards + sealed


def writer_of(store: Path, counts: Counts) -> BackgroundWriter:
    return BackgroundWriter(store, MANIFEST, (CODEC,), made_with={}, on_written=counts.add)


def put_and_finish(writer: BackgroundWriter, one: Piece) -> None:
    writer.put(one)
    writer.finish()


def test_a_shard_appears_with_its_last_piece(tmp_path: Path) -> None:
    counts, shards = Counts(), [ShardKey(2, 0, 4), ShardKey(2, 4, 8), ShardKey(2, 8, 10)]
    with writer_of(tmp_path, counts) as writer:
        writer.put(piece(0, 3, key=shards[0]))
        writer.finish()
        assert not shards[0].path(tmp_path).exists()
        for first, last, key in ((3, 4, shards[0]), (4, 8, shards[1]), (8, 10, shards[2])):
            writer.put(piece(first, last, key=key))
        writer.finish()
        assert all(key.path(tmp_path).exists() for key in shards)
    assert (counts.rows, counts.shards, counts.num_bytes) == (10, 3, 10 * (3 * 2 + 8))
    rows = open_store(tmp_path).gather(2, np.array([9, 0, 4]))
    np.testing.assert_array_equal(rows["logits"][:, 0], [9, 0, 4])
    np.testing.assert_array_equal(rows["label"], [0, 0, 1])


def test_what_is_not_sealed_is_dropped(tmp_path: Path) -> None:
    with writer_of(tmp_path, Counts()) as writer:
        writer.put(piece(4, 7))
        writer.finish()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_outputs_that_cannot_be_kept_name_view_and_samples(tmp_path: Path) -> None:
    with writer_of(tmp_path, Counts()) as writer, pytest.raises(StoreError, match="view 2, samples 4 to 6"):
        put_and_finish(writer, piece(4, 7, fill=float("nan")))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_disk_that_refuses_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "views").write_text("in the way")
    with writer_of(tmp_path, Counts()) as writer, pytest.raises(StoreError, match="cannot write the store"):
        put_and_finish(writer, piece(4, 7))
