"""Are a store's rows the ones that were written, for every way of reading, and is all else named?"""

import gc
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from store_files import NUM_CLASSES, flip, rows_of, small_manifest, small_store, teacher_rows, write_shard

from pipeline.core.errors import StoreError, StoreRowError
from stores.codec_registry import parse_codecs
from stores.codecs.dense_f16 import DenseF16
from stores.file_system import StoreIO, is_local
from stores.index_file import create_store
from stores.layout import ShardKey, shard_keys
from stores.reader import StoreReader, open_store
from stores.shard import ShardWriter, read_shard

VIEW, PAGES = 3, 4096
LARGE_ROWS = 2 * PAGES + 90  # three shards of whole pages, as a map needs them
IOS: list[StoreIO] = ["mmap", "pread"]
CODECS = parse_codecs("dense_f16,embedding_u8", num_classes=NUM_CLASSES, embedding_dim=16)


def large_rows(view: int, keys: range) -> dict[str, np.ndarray]:
    """As rows_of, quickly."""
    ids = np.arange(keys.start, keys.stop)
    values = np.sin(ids[:, None] * 0.37 + np.arange(16) + view).astype("<f4")
    columns = {"label": (ids % NUM_CLASSES).astype("<i4"), "plan_crc": (ids * 7919 + view).astype("<u4")}
    for codec in CODECS:
        columns |= codec.encode(np.ascontiguousarray(values[:, : codec.width]))
    return columns


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views of 8,282 rows in three shards, two codecs."""
    folder = tmp_path_factory.mktemp("store")
    manifest = create_store(folder, small_manifest(CODECS, num_rows=LARGE_ROWS, shard_rows=PAGES), None)
    for view in (VIEW, VIEW + 1):
        for key in shard_keys(view, LARGE_ROWS, PAGES):
            with ShardWriter(folder, key, manifest, made_with={}) as writer:
                writer.write(0, large_rows(view, range(key.start, key.stop)))
                writer.seal()
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Two views of ten rows in three shards, to be damaged."""
    small_store(tmp_path / "own", views=(0, 1))
    return tmp_path / "own"


def ids_of(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, LARGE_ROWS, num)


def assert_written(columns: dict[str, np.ndarray], view: int, ids: np.ndarray) -> None:
    for name, array in large_rows(view, range(LARGE_ROWS)).items():
        if name in columns:
            assert np.array_equal(columns[name], array[ids])
            assert columns[name].dtype == array.dtype


@pytest.mark.parametrize("check_rows", [True, False])
@pytest.mark.parametrize("io", IOS)
def test_rows_come_as_they_were_written(store: Path, io: StoreIO, check_rows: bool) -> None:
    reader = open_store(store, io=io, check_rows=check_rows)
    assert reader.io == io
    assert list(reader.fields) == ["logits", "embedding_u8", "embedding_scale", "embedding_offset"]
    everything = np.arange(LARGE_ROWS)
    for ids in (everything, everything[::-1], ids_of(500), np.array([5, 5, 5]), everything[PAGES - 2 : PAGES + 2]):
        for view in (VIEW, VIEW + 1):
            columns = reader.gather(view, ids)
            assert set(columns) == {*reader.fields, "label", "plan_crc"}
            assert_written(columns, view, ids)
    assert len(reader.gather(VIEW, everything[:0])["logits"]) == 0


@pytest.mark.parametrize("io", IOS)
def test_rows_go_into_the_callers_memory(store: Path, io: StoreIO) -> None:
    reader, ids = open_store(store, io=io), ids_of(64)
    buffer, labels = np.full((200, NUM_CLASSES), 7, "<f2"), np.empty(64, "<i4")
    columns = reader.gather(VIEW, ids, fields=["logits"], out={"logits": buffer[100:164], "label": labels})
    assert set(columns) == {"logits", "label", "plan_crc"}
    assert columns["logits"].base is buffer
    assert columns["label"] is labels
    assert_written(columns, VIEW, ids)
    assert np.all(buffer[:100] == 7)
    assert np.all(buffer[164:] == 7)


@pytest.mark.parametrize("buffer", [np.empty((64, 4), "<f2"), np.empty((64, 5), "<f4"), np.empty((5, 64), "<f2").T])
def test_memory_of_another_form_is_refused(store: Path, buffer: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"(?s)'logits'.*store: \(64, 5\) <f2.*given:"):
        open_store(store).gather(VIEW, ids_of(64), out={"logits": buffer})


@pytest.mark.parametrize("wrong", [-1, LARGE_ROWS, 2**62])
def test_ids_that_the_data_set_does_not_have(store: Path, wrong: int) -> None:
    with pytest.raises(IndexError, match=str(wrong)):
        open_store(store).gather(VIEW, np.array([3, wrong]))


def test_a_field_that_is_not_kept(store: Path) -> None:
    with pytest.raises(StoreError, match=r"keeps logits, embedding_u8.*not 'embedding'"):
        open_store(store).gather(VIEW, ids_of(2), fields=["embedding"])


@pytest.mark.parametrize("io", IOS)
def test_threads_give_the_same_rows(store: Path, io: StoreIO) -> None:
    reader = open_store(store, io=io)

    def read(seed: int) -> None:
        for round_ in range(3):
            ids, view = ids_of(200, seed * 100 + round_), VIEW + (seed + round_) % 2
            assert_written(reader.gather(view, ids), view, ids)
            reader.close()  # others open it again, in the midst of it

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(read, range(8)))


def rows_in_process(reader: StoreReader, seed: int) -> dict[str, np.ndarray]:
    return reader.gather(VIEW, ids_of(100, seed))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("io", IOS)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_give_the_same_rows(store: Path, io: StoreIO, method: str) -> None:
    reader = open_store(store, io=io)
    reader.open_view(VIEW)
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.starmap(rows_in_process, [(reader, seed) for seed in range(4)])
    for seed, columns in enumerate(found):
        assert_written(columns, VIEW, ids_of(100, seed))


def read_inherited(reader: StoreReader, view: int, result: multiprocessing.SimpleQueue) -> None:
    result.put(reader.gather(view, ids_of(100)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("io", IOS)
def test_a_forked_process_goes_on_with_its_parents_reader(store: Path, io: StoreIO) -> None:
    context, reader = multiprocessing.get_context("fork"), open_store(store, io=io)
    reader.open_view(VIEW)
    for view in (VIEW, VIEW + 1):  # open before the fork, and after it
        result = context.SimpleQueue()
        process = context.Process(target=read_inherited, args=(reader, view, result))
        process.start()
        assert_written(result.get(), view, ids_of(100))
        process.join()
        assert process.exitcode == 0
    assert_written(reader.gather(VIEW, ids_of(100)), VIEW, ids_of(100))


def test_a_pickled_reader_is_opened_again(store: Path) -> None:
    reader = open_store(store, io="pread", check_rows=False)
    again = pickle.loads(pickle.dumps(reader))
    assert (again.io, again.path, again._check_rows) == ("pread", store, False)
    assert_written(again.gather(VIEW, ids_of(9)), VIEW, ids_of(9))


def open_files() -> int:
    gc.collect()
    maps = sum("rows-" in line for line in Path("/proc/self/maps").read_text().splitlines())
    return len(os.listdir("/proc/self/fd")) + maps


@pytest.mark.parametrize("io", IOS)
def test_few_views_stay_open_and_none_after_close(tmp_path: Path, io: StoreIO) -> None:
    small_store(tmp_path, views=range(6), shard_rows=10)
    reader, before = open_store(tmp_path, io=io), open_files()
    counts = []
    for view in range(6):
        reader.gather(view, np.arange(10))
        counts.append(open_files())
    assert counts[1] == counts[5] > before
    kept = reader.gather(0, np.arange(10))
    reader.close()
    assert open_files() == before
    assert np.array_equal(kept["label"], reader.gather(0, np.arange(10))["label"])


def data_bytes(path: Path) -> Iterator[tuple[int, int]]:
    """Every byte of the datasets: its place in the file, and its row."""
    for place in read_shard(path).places.values():
        for at in range(place.offset, place.end):
            yield at, (at - place.offset) // place.row_bytes


@pytest.mark.parametrize("io", IOS)
@pytest.mark.parametrize("kept", ["dense_f16", "topk:2"])
def test_every_flipped_byte_is_found_with_its_row(tmp_path: Path, io: StoreIO, kept: str) -> None:
    codecs = parse_codecs(kept, num_classes=NUM_CLASSES, embedding_dim=3)
    small_store(tmp_path, views=(1,), codecs=codecs, num_rows=3, shard_rows=3)
    path, ids = ShardKey(1, 0, 3).path(tmp_path), np.array([2, 0, 1])
    for number, (at, row) in enumerate(data_bytes(path)):
        flip(path, at, mask=1 << number % 8)
        with pytest.raises(StoreRowError, match=rf"1 row\(s\) of view 1 .* sample ids \[{row}\]") as caught:
            open_store(tmp_path, io=io).gather(1, ids)
        assert (caught.value.view, caught.value.ids) == (1, (row,))
        assert str(tmp_path) in str(caught.value)
        flip(path, at, mask=1 << number % 8)
    assert np.array_equal(open_store(tmp_path).gather(1, ids)["label"], rows_of(codecs, 1, ids)["label"])


def test_a_damaged_field_is_found_when_another_is_read(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    path = ShardKey(VIEW, PAGES, 2 * PAGES).path(copy)
    flip(path, read_shard(path).places["embedding_u8"].offset + 16 * 10)
    with pytest.raises(StoreRowError) as caught:
        open_store(copy).gather(VIEW, np.arange(LARGE_ROWS), fields=["logits"])
    assert caught.value.ids == (PAGES + 10,)
    assert_written(open_store(copy, check_rows=False).gather(VIEW, ids_of(9), fields=["logits"]), VIEW, ids_of(9))


@pytest.mark.parametrize("left_bytes", [0, 5000])
def test_a_file_cut_while_it_is_open_is_one_error(own: Path, left_bytes: int) -> None:
    reader, path = open_store(own, io="pread"), ShardKey(0, 4, 8).path(own)
    reader.open_view(0)
    os.truncate(path, left_bytes)
    with pytest.raises(StoreError, match="was truncated while it was open") as caught:
        reader.gather(0, np.arange(10))
    assert str(path) in str(caught.value)
    assert np.array_equal(reader.gather(1, np.arange(10))["label"], np.arange(10) % NUM_CLASSES)


@pytest.mark.parametrize("check_rows", [True, False])
def test_rows_cut_after_the_first_batch_are_an_error_too(own: Path, check_rows: bool) -> None:
    reader, path = open_store(own, io="pread", check_rows=check_rows), ShardKey(0, 8, 10).path(own)
    reader.gather(0, np.arange(10))
    os.truncate(path, read_shard(path).places["logits"].offset + 10)
    reader.gather(0, np.arange(9))
    with pytest.raises(StoreError, match="truncated"):
        reader.gather(0, np.arange(10))


def test_views_are_complete_by_the_names_of_their_shards(own: Path) -> None:
    reader, gone = open_store(own), ShardKey(1, 4, 8)
    gone.path(own).unlink()
    (own / "views" / "notes").mkdir()
    assert reader.complete_views() == [0]
    assert reader.missing(1) == [gone]
    assert len(reader.missing(5)) == 3
    with pytest.raises(StoreError, match=r"lacks 1 of 3 shards: .*rows-0000004-0000008\.h5"):
        reader.gather(1, np.arange(2))
    with pytest.raises(StoreError, match="lacks 3 of 3 shards"):
        reader.open_view(5)
    write_shard(own, gone, reader.manifest, reader.codecs)
    assert reader.complete_views() == [0, 1]
    reader.gather(1, np.arange(10))


def test_shards_of_other_stores_and_other_names_are_never_read(own: Path, tmp_path: Path) -> None:
    small_store(tmp_path / "other", views=(0,), plan_seed=99)
    key = ShardKey(0, 4, 8)
    foreign, renamed, another_view = (
        key.path(tmp_path / "other"), ShardKey(0, 0, 4).path(own), ShardKey(1, 4, 8).path(own),
    )  # fmt: skip
    for source, message in ((foreign, "another store"), (renamed, "other rows"), (another_view, "other rows")):
        shutil.copyfile(source, key.path(own))
        with pytest.raises(StoreError, match=message) as caught:
            open_store(own).gather(0, np.arange(1))
        assert str(key.path(own)) in str(caught.value)


def test_a_store_without_its_index_is_read_from_its_shards(own: Path, tmp_path: Path) -> None:
    (own / "store.h5").unlink()
    assert open_store(own).manifest == small_manifest()
    open_store(own).gather(1, np.arange(10))
    with pytest.raises(StoreError, match="is not a store"):
        open_store(tmp_path / "nothing")


def test_shards_that_do_not_fill_pages_are_not_mapped(store: Path, own: Path) -> None:
    assert open_store(store).io == ("mmap" if is_local(store) else "pread")
    assert open_store(own).io == "pread"
    with pytest.raises(StoreError, match=r"4 rows of 'logits' are not whole pages of memory.*io=\"pread\""):
        open_store(own, io="mmap")


def test_an_open_store_of_fifty_imagenet_views_is_small(tmp_path: Path) -> None:
    """Empty files stand for 49 views, of which a reader needs the names; one view is opened, sparse."""
    manifest = small_manifest((DenseF16(width=1000),), num_rows=1_281_167, shard_rows=1 << 16)
    create_store(tmp_path, manifest, None)
    script = """
import sys, time
from pathlib import Path
import numpy as np
from store_files import small_manifest
from stores.layout import shard_keys, view_folder
from stores.reader import open_store
from stores.shard_file import create_shard_file

store, rows = Path(sys.argv[1]), 1_281_167
manifest = open_store(store).manifest
for view in range(50):
    view_folder(store, view).mkdir(parents=True)
    for key in shard_keys(view, rows, 1 << 16):
        if view:
            key.path(store).touch()
        else:
            create_shard_file(key.path(store), key, manifest, made_with={})

def private_mb():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024

for io in ("mmap", "pread"):
    before, started = private_mb(), time.perf_counter()
    reader = open_store(store, io=io, check_rows=False)
    assert len(reader.complete_views()) == 50
    reader.open_view(0)
    opened_s = time.perf_counter() - started
    reader.gather(0, np.random.default_rng(0).integers(0, rows, 256))
    print(opened_s, private_mb() - before)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    for line in found.stdout.splitlines():
        opened_s, added_mb = (float(word) for word in line.split())
        assert opened_s <= 2
        assert added_mb <= 50
    assert len(found.stdout.splitlines()) == 2


def test_teacher_rows_are_decoded(store: Path, own: Path) -> None:
    (codec,) = open_store(own).codecs
    ids = np.array([9, 0, 4])
    decoded = codec.decode(open_store(own).gather(1, ids))
    expected = teacher_rows(codec, 1, ids)
    assert np.all(np.abs(decoded - expected) <= codec.bound(expected))
