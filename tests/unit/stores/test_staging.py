"""Are staged views the same rows, copied once, and never more than a copy?"""

import multiprocessing
import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from store_files import NUM_CLASSES, flip, rows_of, small_manifest, small_store

from pipeline.core.errors import StoreError, StoreRowError
from stores.codecs.dense_f16 import DenseF16
from stores.index_file import create_store
from stores.layout import ShardKey, shard_keys, view_folder
from stores.reader import StoreReader, open_store
from stores.shard import read_shard
from stores.shard_file import create_shard_file
from stores.staging import staged_store

IDS = np.array([9, 3, 4, 0, 7])
DENSE = (DenseF16(width=NUM_CLASSES),)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    small_store(tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def fast(tmp_path: Path) -> Path:
    return tmp_path / "fast" / "disk"


def damage(store: Path, view: int) -> None:
    path = ShardKey(view, 0, 4).path(store)
    flip(path, read_shard(path).places["logits"].offset)


def assert_written(reader: StoreReader, view: int) -> None:
    columns = reader.gather(view, IDS)
    for name, array in rows_of(DENSE, view, IDS).items():
        assert np.array_equal(columns[name], array)


def copies(fast: Path) -> list[Path]:
    return sorted(fast.rglob("*.h5"))


def test_rows_come_from_the_copy_until_it_is_unstaged(store: Path, fast: Path) -> None:
    reader = open_store(store)
    reader.stage(1, fast)
    assert [path.name for path in copies(fast)] == [key.path(store).name for key in shard_keys(1, 10, 4)]
    damage(store, 1)
    assert_written(reader, 1)
    assert_written(reader, 0)
    reader.unstage(1, fast)
    assert copies(fast) == []
    with pytest.raises(StoreRowError):
        reader.gather(1, IDS)


def test_a_damaged_copy_is_found(store: Path, fast: Path) -> None:
    reader = open_store(store)
    reader.stage(1, fast)
    damage(staged_store(fast, reader.manifest), 1)
    with pytest.raises(StoreRowError) as caught:
        reader.gather(1, IDS)
    assert caught.value.ids == (0,)


def test_what_is_staged_already_is_not_copied_again(store: Path, fast: Path) -> None:
    open_store(store).stage(0, fast)
    before = [(path, path.stat().st_ino) for path in copies(fast)]
    half = copies(fast)[1]
    os.truncate(half, half.stat().st_size // 2)
    reader = open_store(store)
    reader.stage(0, fast)
    after = [(path, path.stat().st_ino) for path in copies(fast)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]
    assert_written(reader, 0)


def stage_and_read(store: Path, fast: Path) -> list[tuple[str, int]]:
    reader = open_store(store)
    reader.stage(0, fast)
    assert_written(reader, 0)
    return [(path.name, path.stat().st_ino) for path in copies(fast)]


def test_processes_of_a_machine_copy_once(store: Path, fast: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.starmap(stage_and_read, [(store, fast)] * 6, chunksize=1)
    assert all(files == found[0] for files in found)
    assert len(found[0]) == 3


def test_staging_beside_reading(store: Path, fast: Path) -> None:
    reader = open_store(store)
    assert_written(reader, 0)
    thread = threading.Thread(target=reader.stage, args=(1, fast))
    thread.start()
    while thread.is_alive():
        assert_written(reader, 0)
    thread.join()
    damage(store, 1)
    assert_written(reader, 1)


def test_a_copy_that_another_process_removed_is_not_needed(store: Path, fast: Path) -> None:
    reader, other = open_store(store), open_store(store)
    reader.stage(0, fast)
    other.stage(0, fast)
    other.unstage(0, fast)
    assert_written(reader, 0)  # its files are still open
    again = pickle.loads(pickle.dumps(reader))
    assert_written(again, 0)
    reader.close()
    assert_written(reader, 0)


def test_two_stores_share_a_folder(store: Path, fast: Path, tmp_path: Path) -> None:
    small_store(tmp_path / "other", views=(0,), plan_seed=99)
    first, second = open_store(store), open_store(tmp_path / "other")
    first.stage(0, fast)
    second.stage(0, fast)
    assert len(copies(fast)) == 6
    first.unstage(0, fast)
    assert len(copies(fast)) == 3
    damage(tmp_path / "other", 0)
    second.gather(0, IDS)


def test_a_view_that_is_not_complete_is_not_staged(store: Path, fast: Path) -> None:
    ShardKey(1, 8, 10).path(store).unlink()
    with pytest.raises(StoreError, match="lacks 1 of 3 shards"):
        open_store(store).stage(1, fast)
    assert not fast.exists()


def test_no_space_is_said_before_anything_is_copied(fast: Path, tmp_path: Path) -> None:
    """Eight terabytes of nothing."""
    num = 4 * 10**9
    manifest = small_manifest((DenseF16(width=1000),), num_rows=num, shard_rows=num)
    store = tmp_path / "huge"
    create_store(store, manifest, None)
    key = ShardKey(0, 0, num)
    view_folder(store, 0).mkdir(parents=True)
    try:
        create_shard_file(key.path(store), key, manifest, made_with={})
    except OSError as error:
        pytest.skip(f"no sparse file of 8 TB here: {error}")
    with pytest.raises(OSError, match=r"staging a view needs 804\d\.\d\d GB, .* GB are free"):
        open_store(store).stage(0, fast)
    assert copies(fast) == []


def test_a_warm_view_is_the_same_rows(store: Path, fast: Path) -> None:
    reader = open_store(store)
    reader.stage(1, fast)
    for view in (0, 1):
        reader.warm(view)
        assert_written(reader, view)
    with pytest.raises(StoreError, match="lacks 3 of 3 shards"):
        reader.warm(2)


def test_staging_is_undone_only_where_it_was_done(store: Path, fast: Path) -> None:
    open_store(store).unstage(0, fast)
    assert not fast.exists()
