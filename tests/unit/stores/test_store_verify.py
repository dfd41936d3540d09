"""`verify` finds every kind of damage and names it; what is whole passes."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from store_files import NUM_CLASSES, flip, small_manifest, small_store, write_shard

from pipeline.core.errors import StoreError
from pipeline.core.hdf5 import read_text
from stores.codecs.affine_u8 import AffineU8
from stores.codecs.dense_f16 import DenseF16
from stores.codecs.embedding_f16 import EmbeddingF16
from stores.codecs.topk import TopK
from stores.index_file import create_store, write_index
from stores.layout import ShardKey, shard_keys
from stores.problems import Problem
from stores.shard import read_shard
from stores.verify import verify_store

CODECS = (DenseF16(width=NUM_CLASSES), AffineU8(width=NUM_CLASSES), TopK(width=NUM_CLASSES, k=2))
HEAD = (np.ones((NUM_CLASSES, 3), "<f4"), np.zeros(NUM_CLASSES, "<f4"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    small_store(tmp_path / "store")
    return tmp_path / "store"


def verify(store: Path) -> list[Problem]:
    return verify_store(store, on_progress=lambda done, total: None)


def problems(store: Path) -> list[Problem]:
    return [found for found in verify(store) if found.kind == "problem"]


def test_a_whole_store_has_neither_problems_nor_notes(tmp_path: Path) -> None:
    codecs = (*CODECS, EmbeddingF16(width=3))
    small_store(tmp_path / "s", views=(0, 3), codecs=codecs, head=HEAD)
    steps: list[tuple[int, int]] = []
    assert verify_store(tmp_path / "s", on_progress=lambda done, total: steps.append((done, total))) == []
    assert steps[0] == (0, 20)
    assert steps[-1] == (20, 20)


def test_a_store_without_rows_is_whole(tmp_path: Path) -> None:
    create_store(tmp_path / "s", small_manifest(), None)
    assert verify(tmp_path / "s") == []


def test_every_flipped_byte_of_every_dataset_is_found_and_its_row_named(tmp_path: Path) -> None:
    """Exhaustive over a shard of four rows of three codecs; verify's other findings stay empty."""
    store, key = tmp_path / "s", ShardKey(1, 0, 4)
    small_store(store, views=(1,), codecs=CODECS, num_rows=4)
    path, flipped = key.path(store), 0
    for name, place in read_shard(path).places.items():
        for byte in range(place.shape[0] * place.row_bytes):
            flip(path, place.offset + byte)
            sample = key.start + byte // place.row_bytes
            found = verify(store)
            assert [(one.path, one.view, one.ids) for one in found] == [(path, 1, (sample,))], name
            assert f"(view 1, sample ids {sample})" in str(found[0])
            flip(path, place.offset + byte)
            flipped += 1
    assert flipped == sum(place.shape[0] * place.row_bytes for place in read_shard(path).places.values())
    assert verify(store) == []


def test_flips_in_larger_shards_are_found(tmp_path: Path) -> None:
    """Rows that verify reads in several blocks."""
    store = tmp_path / "s"
    codecs = (DenseF16(width=1500),)
    small_store(store, views=(0,), codecs=codecs, num_rows=9000, shard_rows=8192)
    rng = np.random.default_rng(0)
    for key in shard_keys(0, 9000, 8192):
        path, places = key.path(store), read_shard(key.path(store)).places
        chosen = rng.choice(key.stop - key.start, 6, replace=False)
        names = ["logits", "logits", "label", "plan_crc", "row_crc", "logits"]
        for name, row in zip(names, chosen, strict=True):
            place = places[name]
            flip(path, place.offset + row * place.row_bytes + int(rng.integers(place.row_bytes)))
        (found,) = [one for one in verify(store) if one.path == path]
        assert found.ids == tuple(sorted(int(key.start + row) for row in chosen))


def test_many_bad_rows_are_counted(store: Path) -> None:
    path = ShardKey(0, 0, 4).path(store)
    found = Problem(path, "rows are bad", view=0, ids=tuple(range(1000)))
    assert str(found).endswith("(view 0, sample ids 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 990 more)")


def truncate(store: Path) -> None:
    path = ShardKey(0, 4, 8).path(store)
    os.truncate(path, path.stat().st_size * 3 // 4)


def empty_shard(store: Path) -> None:
    ShardKey(0, 4, 8).path(store).write_bytes(b"")


def delete(store: Path) -> None:
    ShardKey(0, 4, 8).path(store).unlink()


def delete_a_view(store: Path) -> None:
    shutil.rmtree(store / "views" / "0000")


def foreign_file(store: Path) -> None:
    (store / "views" / "0000" / "notes.txt").write_text("mine")


def foreign_at_the_top(store: Path) -> None:
    (store / "data.h5").write_bytes(b"")


def foreign_folder(store: Path) -> None:
    (store / "views" / "7").mkdir()


def other_store(store: Path) -> None:
    small_store(store.with_name("other"), plan_seed=9)
    key = ShardKey(0, 4, 8)
    shutil.copyfile(key.path(store.with_name("other")), key.path(store))


def renamed_view(store: Path) -> None:
    shutil.copyfile(ShardKey(1, 4, 8).path(store), ShardKey(0, 4, 8).path(store))


def renamed_rows(store: Path) -> None:
    ShardKey(0, 0, 4).path(store).rename(store / "swap")
    ShardKey(0, 4, 8).path(store).rename(ShardKey(0, 0, 4).path(store))
    (store / "swap").rename(ShardKey(0, 4, 8).path(store))


def odd_rows(store: Path) -> None:
    write_shard(store, ShardKey(0, 1, 5), small_manifest(), CODECS[:1])


def shard_of_a_newer_version(store: Path) -> None:
    with h5py.File(ShardKey(0, 4, 8).path(store), "r+", locking=False) as file:
        file.attrs["header"] = read_text(file, "header").replace('"version": 1', '"version": 2')


def edited_shard_manifest(store: Path) -> None:
    with h5py.File(ShardKey(0, 4, 8).path(store), "r+", locking=False) as file:
        file.attrs["manifest"] = read_text(file, "manifest").replace('"plan_seed":3', '"plan_seed":4')


def edited_manifest(store: Path) -> None:
    with h5py.File(store / "store.h5", "r+") as file:
        file.attrs["manifest"] = read_text(file, "manifest").replace('"plan_seed":3', '"plan_seed":4')


def edited_fingerprint(store: Path) -> None:
    with h5py.File(store / "store.h5", "r+") as file:
        file.attrs["fingerprint"] = "00" * 32


def newer_index(store: Path) -> None:
    with h5py.File(store / "store.h5", "r+") as file:
        file.attrs["manifest"] = read_text(file, "manifest").replace('"version":1', '"version":2')


def lost_index(store: Path) -> None:
    (store / "store.h5").unlink()


def damaged_index(store: Path) -> None:
    (store / "store.h5").write_bytes(b"\x00" * 100)


def external_link(store: Path) -> None:
    with h5py.File(store / "store.h5", "r+") as file:
        del file["views/0/logits"]
        file["views/0/logits"] = h5py.ExternalLink("/elsewhere.h5", "logits")


def absolute_source(store: Path) -> None:
    layout = h5py.VirtualLayout((10, NUM_CLASSES), "<f2")
    layout[0:4] = h5py.VirtualSource(str(ShardKey(0, 0, 4).path(store)), "logits", (4, NUM_CLASSES), "<f2")
    with h5py.File(store / "store.h5", "r+") as file:
        del file["views/0/logits"]
        file.create_virtual_dataset("views/0/logits", layout)


def swapped_sources(store: Path) -> None:
    layout = h5py.VirtualLayout((10,), "<i4")
    layout[0:4] = h5py.VirtualSource("views/0000/rows-0000004-0000008.h5", "label", (4,), "<i4")
    with h5py.File(store / "store.h5", "r+") as file:
        del file["views/0/label"]
        file.create_virtual_dataset("views/0/label", layout)


def copied_data(store: Path) -> None:
    with h5py.File(store / "store.h5", "r+") as file:
        del file["views/0/label"]
        file["views/0/label"] = np.zeros(10, "<i4")


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (truncate, r"0000/rows-0000004-0000008\.h5: .*(truncated|not a readable shard)"),
    (empty_shard, r"0000/rows-0000004-0000008\.h5: .*not a readable shard"),
    (delete, r"0000/rows-0000004-0000008\.h5: is missing: store\.h5 lists it"),
    (delete_a_view, r"0000/rows-0000000-0000004\.h5: is missing: store\.h5 lists it"),
    (foreign_file, r"0000/notes\.txt: does not belong to a store"),
    (foreign_at_the_top, r"store/data\.h5: does not belong to a store"),
    (foreign_folder, r"views/7: does not belong to a store"),
    (other_store, r"0000/rows-0000004-0000008\.h5: is a shard of another store"),
    (renamed_view, r"0000/rows-0000004-0000008\.h5: holds other rows than its name says: it was renamed"),
    (renamed_rows, r"0000/rows-0000004-0000008\.h5: holds other rows than its name says: it was renamed"),
    (odd_rows, r"0000/rows-0000001-0000005\.h5: no shard of this store has such rows"),
    (shard_of_a_newer_version, r"0000/rows-0000004-0000008\.h5: has store format version 2, this program reads 1"),
    (edited_shard_manifest, r"0000/rows-0000004-0000008\.h5: its manifest does not have the fingerprint"),
    (edited_manifest, r"store\.h5: 'plan_seed' is not what the shards say(.|\n)*shards: +3\n +store\.h5: 4"),
    (edited_fingerprint, r"store\.h5: the recorded fingerprint is not the manifest's"),
    (newer_index, r"store\.h5: .*format version 2, this program reads 1"),
    (lost_index, r"store\.h5: .*python -m stores index"),
    (damaged_index, r"store\.h5: cannot be read"),
    (external_link, r"store\.h5: '/views/0/logits' is a link to elsewhere"),
    (absolute_source, r"store\.h5: '/views/0/logits' takes rows 0 to 3 from /"),
    (swapped_sources, r"store\.h5: '/views/0/label' takes rows 0 to 3 from views/0000/rows-0000004"),
    (copied_data, r"store\.h5: '/views/0/label' is not a virtual dataset"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[damage.__name__ for damage, _ in DAMAGE])
def test_damage_is_named(store: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(store)
    said = "\n".join(map(str, problems(store)))
    assert re.search(message, said), said


def test_damage_of_one_file_hides_no_other(store: Path) -> None:
    edited_manifest(store)
    truncate(store)
    path = ShardKey(1, 8, 10).path(store)
    flip(path, read_shard(path).places["label"].offset)
    foreign_file(store)
    assert len({found.path for found in problems(store)}) == 4


def test_a_label_that_is_no_class_is_found(tmp_path: Path) -> None:
    small_store(tmp_path / "s", classes=("a", "b", "c"))
    found = problems(tmp_path / "s")
    assert [one.ids for one in found if one.view == 0] == [(3,), (4,), (8, 9)]
    assert "labels are none of the 3 classes" in found[0].message


def test_a_lost_head_is_found_where_embeddings_need_it(tmp_path: Path) -> None:
    small_store(tmp_path / "s", codecs=(EmbeddingF16(width=3),), head=HEAD)
    (tmp_path / "s" / "head.h5").unlink()
    (found,) = problems(tmp_path / "s")
    assert str(found).startswith(f"{tmp_path / 's' / 'head.h5'}: is missing")


def test_a_damaged_head_is_found(tmp_path: Path) -> None:
    small_store(tmp_path / "s", codecs=(EmbeddingF16(width=3),), head=HEAD)
    with h5py.File(tmp_path / "s" / "head.h5", "r") as file:
        offset = file["bias"].id.get_offset()
    flip(tmp_path / "s" / "head.h5", offset)
    (found,) = problems(tmp_path / "s")
    assert "head.h5 is damaged: dataset 'bias'" in str(found)


def test_what_is_not_damage_is_a_note(store: Path) -> None:
    key = ShardKey(2, 4, 8)
    write_shard(store, key, small_manifest(), CODECS[:1])
    (store / "views" / "0001" / ".rows-0000004-0000008.h5.12345678.tmp").write_bytes(b"half")
    (store / ".store.h5.12345678.tmp").write_bytes(b"")
    (store / "jobs" / "part-1-of-1").mkdir(parents=True)
    (store / "jobs" / "part-1-of-1" / "state.json").write_text("{}")
    found = verify(store)
    assert {one.kind for one in found} == {"note"}
    said = "\n".join(map(str, found))
    assert "view 2 is not complete: 2 of 3 shards are missing (rows-0000000-0000004.h5, rows-0000008" in said
    assert said.count("left by a job that was killed") == 2
    assert "store.h5: is older than 1 of the shards; make it again" in said
    write_index(store)
    assert "is older than" not in "\n".join(map(str, verify(store)))


def test_no_store_is_an_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(StoreError, match="is not a store"):
            verify(folder)


def test_verify_changes_nothing(store: Path) -> None:
    foreign_file(store)
    truncate(store)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in store.rglob("*") if path.is_file()}
    verify(store)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in store.rglob("*") if path.is_file()} == before
