"""Is a shard an ordinary HDF5 file that is there complete or not at all, and are all others refused by name?"""

import json
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from store_files import flip, rows_of, small_manifest, write_shard

from pipeline.core.atomic import is_temporary
from pipeline.core.errors import StoreError
from stores.codec import Codec
from stores.codec_registry import parse_codecs
from stores.layout import ShardKey
from stores.shard import ShardWriter, check_shard, read_shard

KEY = ShardKey(7, 4, 8)
CODECS: dict[str, tuple[Codec, ...]] = {
    text: parse_codecs(text, num_classes=5, embedding_dim=3)
    for text in ("dense_f16", "affine_u8", "topk:2", "embedding_f16", "embedding_u8,dense_f16")
}
DENSE = CODECS["dense_f16"]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    write_shard(tmp_path, KEY, small_manifest(), DENSE)
    return KEY.path(tmp_path)


def writer(store: Path) -> ShardWriter:
    manifest = small_manifest()
    return ShardWriter(store, KEY, manifest, made_with={"gpu": "none"})


def rows(start: int = KEY.start, stop: int = KEY.stop) -> dict[str, np.ndarray]:
    return rows_of(DENSE, KEY.view, np.arange(start, stop))


@pytest.mark.parametrize("name", CODECS)
def test_h5py_alone_reads_what_was_written(tmp_path: Path, name: str) -> None:
    manifest, codecs = small_manifest(CODECS[name]), CODECS[name]
    write_shard(tmp_path, KEY, manifest, codecs)
    wanted = rows_of(codecs, KEY.view, np.arange(4, 8))
    with h5py.File(KEY.path(tmp_path)) as file:
        assert set(file) == {*wanted, "row_crc"}
        for field, array in wanted.items():
            assert np.array_equal(file[field][...], array)
            assert file[field].dtype == array.dtype
            assert file[field].chunks is None
            assert file[field].id.get_offset() % 4096 == 0
        header = json.loads(file.attrs["header"])
        assert file.attrs["manifest"].decode() == manifest.to_text()
    assert header.pop("made_with") == {"test": True}
    said = {"kind": "reflux store shard", "version": 1, "store": manifest.fingerprint()}
    assert header == {**said, "view": 7, "start": 4, "stop": 8}


@pytest.mark.parametrize("name", CODECS)
def test_a_row_checksum_is_the_one_of_the_specification(tmp_path: Path, name: str) -> None:
    codecs = CODECS[name]
    write_shard(tmp_path, KEY, small_manifest(codecs), codecs)
    wanted = rows_of(codecs, KEY.view, np.arange(4, 8))
    order = ["label", "plan_crc", *(field.name for codec in codecs for field in codec.fields)]
    with h5py.File(KEY.path(tmp_path)) as file:
        for row in range(4):
            assert file["row_crc"][row] == zlib.crc32(b"".join(wanted[field][row].tobytes() for field in order))


@pytest.mark.parametrize("num_classes", [5, 21_841])
def test_texts_lie_where_hdf5_has_a_checksum(tmp_path: Path, num_classes: int) -> None:
    """Strings of variable length do not: one wrong byte there, and HDF5 2.0 never comes back."""
    classes = tuple(f"n{label:08d}, some kind of fish or bird" for label in range(num_classes))
    manifest = small_manifest(classes=classes)
    write_shard(tmp_path, KEY, manifest, DENSE)
    with h5py.File(KEY.path(tmp_path)) as file:
        for name in ("header", "manifest"):
            kind = h5py.check_string_dtype(file.attrs.get_id(name).dtype)
            assert kind.length == len(file.attrs[name])
    assert read_shard(KEY.path(tmp_path)).manifest_text == manifest.to_text()


def test_nothing_is_visible_before_the_seal(tmp_path: Path) -> None:
    with writer(tmp_path) as shard_writer:
        shard_writer.write(0, rows())
        (found,) = KEY.path(tmp_path).parent.iterdir()
        assert is_temporary(found)
        shard_writer.seal()
        assert list(found.parent.iterdir()) == [KEY.path(tmp_path)]
    assert read_shard(KEY.path(tmp_path)).key == KEY


def test_a_block_that_is_left_early_leaves_nothing(tmp_path: Path) -> None:
    with writer(tmp_path) as shard_writer:
        shard_writer.write(0, rows())
    assert list(KEY.path(tmp_path).parent.iterdir()) == []


def test_pieces_in_any_order_at_any_time_make_the_same_bytes(tmp_path: Path) -> None:
    with writer(tmp_path / "whole") as whole:
        whole.write(0, rows())
        whole.seal()
    time.sleep(1.1)  # HDF5 would note the second
    with writer(tmp_path / "pieces") as pieces:
        pieces.write(3, rows(7, 8))
        pieces.write(0, rows(4, 5))
        pieces.write(1, rows(5, 7))
        pieces.seal()
    assert whole.path.read_bytes() == pieces.path.read_bytes()


def test_rows_that_nobody_wrote_are_no_shard(tmp_path: Path) -> None:
    with writer(tmp_path) as shard_writer:
        shard_writer.write(0, rows(4, 5))
        shard_writer.write(3, rows(7, 8))
        with pytest.raises(ValueError, match="2 rows were not written, the first is row 1"):
            shard_writer.seal()
    assert not KEY.path(tmp_path).exists()


def test_a_shard_that_is_there_stays(tmp_path: Path, shard: Path) -> None:
    before, inode = shard.read_bytes(), shard.stat().st_ino
    with writer(tmp_path) as shard_writer:
        shard_writer.write(0, {**rows(), "label": np.zeros(4, "<i4")})
        shard_writer.seal()
    assert (shard.read_bytes(), shard.stat().st_ino) == (before, inode)
    assert list(shard.parent.iterdir()) == [shard]


@pytest.mark.parametrize(
    ("start", "changes", "message"),
    [
        (0, {"logits": None}, "columns are"),
        (0, {"more": np.zeros(4)}, "columns are"),
        (0, {"logits": np.zeros((4, 5), "<f4")}, r"(?s)given: \(4, 5\) <f4"),
        (0, {"logits": np.zeros((4, 6), "<f2")}, r"(?s)store: \(4, 5\) <f2"),
        (0, {"label": np.zeros(4, "<i8")}, "<i8"),
        (1, {}, "rows 1 to 5 lie outside"),
        (-1, {}, "outside"),
    ],
)
def test_columns_of_another_form_are_refused(
    tmp_path: Path, start: int, changes: dict[str, np.ndarray | None], message: str
) -> None:
    columns = {name: array for name, array in {**rows(), **changes}.items() if array is not None}
    with writer(tmp_path) as shard_writer, pytest.raises(ValueError, match=message):
        shard_writer.write(start, columns)


@pytest.mark.parametrize("left_bytes", [100, 20_000, 300_000])
def test_a_full_disk_leaves_no_shard_and_the_next_try_goes_on(tmp_path: Path, left_bytes: int) -> None:
    """The largest file is limited, so that the header, the rows or the last rows do not fit."""
    script = """
import resource, sys
from pathlib import Path
import numpy as np
from stores.layout import ShardKey
from stores.shard import ShardWriter
from store_files import small_manifest
store, key, manifest = Path(sys.argv[1]), ShardKey(0, 0, 30_000), small_manifest(num_rows=30_000, shard_rows=30_000)
ones = {"logits": np.ones((30_000, 5), "<f2"), "label": np.ones(30_000, "<i4"), "plan_crc": np.ones(30_000, "<u4")}
for limit in (int(sys.argv[2]), -1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
    try:
        with ShardWriter(store, key, manifest, made_with={}) as writer:
            writer.write(0, ones)
            writer.seal()
    except OSError as error:
        print(error.errno, error.filename, *key.path(store).parent.iterdir())
print(*key.path(store).parent.iterdir())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(tmp_path), str(left_bytes)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    first, second = found.stdout.splitlines()
    number, filename = first.split(" ")  # and no file in the folder
    assert os.strerror(int(number)) == "File too large"
    assert Path(filename).parent.name == "0000"
    assert second == str(ShardKey(0, 0, 30_000).path(tmp_path))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "views").write_text("a file")
    with pytest.raises(NotADirectoryError, match="views"):
        writer(tmp_path)


def replace(path: Path, **attributes: str) -> None:
    with h5py.File(path, "r+", locking=False) as file:
        for name, value in attributes.items():
            file.attrs[name] = value


def change_header(path: Path, **changes: object) -> None:
    with h5py.File(path, "r", locking=False) as file:
        header = json.loads(file.attrs["header"])
    replace(path, header=json.dumps({**header, **changes}))


def rebuild(path: Path, name: str, **options: object) -> None:
    """Another layout of one dataset."""
    with h5py.File(path, "r+", locking=False) as file:
        data = file[name][...]
        del file[name]
        file.create_dataset(name, data=data, **options)


def link_outside(path: Path) -> None:
    other = path.with_name("other.h5")
    with h5py.File(other, "w") as file:
        file["label"] = np.zeros(4, "<i4")
    with h5py.File(path, "r+", locking=False) as file:
        del file["label"]
        file["label"] = h5py.ExternalLink("other.h5", "label")


def store_outside(path: Path) -> None:
    path.with_name("raw").write_bytes(bytes(16))
    with h5py.File(path, "r+", locking=False) as file:
        del file["label"]
        file.create_dataset("label", (4,), "<i4", external=[(str(path.with_name("raw")), 0, 16)])


def make_group(path: Path) -> None:
    with h5py.File(path, "r+", locking=False) as file:
        file.create_group("more")


DAMAGES = {
    "text": (lambda path: path.write_text("rows"), "not a readable shard"),
    "empty": (lambda path: path.write_bytes(b""), "not a readable shard"),
    "half": (lambda path: os.truncate(path, path.stat().st_size // 2), "(?s)not a readable shard.*truncated"),
    "one byte less": (lambda path: os.truncate(path, path.stat().st_size - 1), "truncated"),
    "damaged header": (lambda path: flip(path, 20), "not a readable shard"),
    "no attributes": (lambda path: h5py.File(path, "w").close(), "not a readable shard"),
    "no JSON": (lambda path: replace(path, header="rows"), "not a readable shard"),
    "of another kind": (lambda path: change_header(path, kind="index"), "not a shard of a store"),
    "a list": (lambda path: replace(path, header="[]"), "not a shard of a store"),
    "newer": (lambda path: change_header(path, version=2), "format version 2, this program reads 1: update"),
    "another view inside": (lambda path: change_header(path, view=8), "(?s)name:   view 7.*header: view 8"),
    "another fingerprint": (lambda path: change_header(path, store="0" * 64), "fingerprint in its header"),
    "no manifest": (lambda path: replace(path, manifest="{}"), "manifest"),
    "chunked": (lambda path: rebuild(path, "logits", chunks=(2, 5)), "'logits' is not contiguous"),
    "link": (link_outside, "'label' is a link"),
    "external": (store_outside, "'label' is not contiguous bytes of this file"),
    "group": (make_group, "'more' is not a dataset"),
    "missing": (lambda path: path.unlink(), "is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_shard_is_refused_by_name(shard: Path, damage: str) -> None:
    change, message = DAMAGES[damage]
    change(shard)
    with pytest.raises(StoreError, match=message) as caught:
        read_shard(shard)
    assert str(shard) in str(caught.value)


def test_a_renamed_shard_is_refused(shard: Path) -> None:
    for other in (ShardKey(7, 0, 4), ShardKey(8, 4, 8)):
        path = other.path(shard.parents[2])
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(shard.read_bytes())
        with pytest.raises(StoreError, match=r"(?s)renamed.*name: +view .*header: view 7, rows 4 to 8"):
            read_shard(path)
    with pytest.raises(StoreError, match="not named as a shard"):
        read_shard(shard.with_name("rows.h5"))


def test_a_shard_of_another_store_is_refused_with_both(shard: Path) -> None:
    other = small_manifest(plan_seed=4)
    check_shard(read_shard(shard), small_manifest())
    with pytest.raises(StoreError, match="another store") as caught:
        check_shard(read_shard(shard), other)
    assert other.fingerprint() in str(caught.value)
    assert small_manifest().fingerprint() in str(caught.value)


def test_other_datasets_than_the_codecs_are_refused(shard: Path) -> None:
    rebuild(shard, "logits", dtype="<f4")
    with pytest.raises(StoreError, match=r"(?s)other datasets.*<f2.*<f4"):
        check_shard(read_shard(shard), small_manifest())
