"""Arrays in one HDF5 file: there and back, damage found and named."""

import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.core.arrays import map_arrays, write_arrays
from pipeline.core.errors import ArraysError

ARRAYS = {
    "small": np.arange(7, dtype=np.int32),
    "matrix": np.random.default_rng(0).normal(size=(300, 11)).astype(np.float16),
    "empty": np.zeros((0, 3), np.uint8),
    "big_endian": np.arange(5, dtype=">i8"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "arrays.h5"
    write_arrays(path, ARRAYS, {"what": "a test", "number": 3})
    return path


def flip_byte(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def offset_of(path: Path, name: str) -> int:
    with h5py.File(path, "r") as opened:
        return int(opened[name].id.get_offset())


def test_the_same_arrays_are_the_same_bytes_at_any_time(file: Path, tmp_path: Path) -> None:
    time.sleep(1.1)  # HDF5 would note the second
    write_arrays(tmp_path / "later.h5", ARRAYS, {"what": "a test", "number": 3})
    assert (tmp_path / "later.h5").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("verify", [True, False])
def test_there_and_back(file: Path, verify: bool) -> None:
    mapped = map_arrays(file, verify=verify)
    assert mapped.header == {"what": "a test", "number": 3}
    assert set(mapped.arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert mapped.arrays[name].dtype == array.dtype
        assert np.array_equal(mapped.arrays[name], array)


def test_any_hdf5_program_reads_it(file: Path) -> None:
    with h5py.File(file, "r") as opened:
        assert np.array_equal(opened["matrix"][:], ARRAYS["matrix"])
        assert opened["matrix"].chunks is None


def test_mapped_arrays_cannot_be_written(file: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        map_arrays(file, verify=False).arrays["small"][0] = 1


def test_a_flipped_byte_is_found_and_the_dataset_named(file: Path) -> None:
    for name in ("small", "matrix"):
        offset = offset_of(file, name) + 5
        flip_byte(file, offset)
        with pytest.raises(ArraysError, match=f"damaged: dataset '{name}'"):
            map_arrays(file, verify=True)
        map_arrays(file, verify=False)
        flip_byte(file, offset)
    map_arrays(file, verify=True)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(file: Path, share: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ArraysError, match=r"arrays\.h5"):
        map_arrays(file, verify=False)


def test_a_foreign_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.h5"
    path.write_text("not HDF5")
    with pytest.raises(ArraysError, match=r"notes\.h5 is not a readable file of arrays"):
        map_arrays(path, verify=True)


def test_a_foreign_hdf5_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as opened:
        opened["x"] = np.arange(3)
    with pytest.raises(ArraysError, match=r"other\.h5"):
        map_arrays(path, verify=True)


@pytest.mark.parametrize("kind", ["group", "chunked"])
def test_unexpected_contents_are_refused_by_name(file: Path, kind: str) -> None:
    with h5py.File(file, "a") as opened:
        if kind == "group":
            opened.create_group("folder")
        else:
            opened.create_dataset("pieces", data=np.arange(100), chunks=(10,)).attrs["crc32"] = 0
    with pytest.raises(ArraysError, match=r"arrays\.h5"):
        map_arrays(file, verify=False)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises((ArraysError, FileNotFoundError), match=r"none\.h5"):
        map_arrays(tmp_path / "none.h5", verify=True)


def test_writing_again_replaces_the_file_under_its_readers(file: Path) -> None:
    before = map_arrays(file, verify=True).arrays["small"]
    write_arrays(file, {"small": np.zeros(7, np.int32)}, {})
    assert np.array_equal(before, ARRAYS["small"])
    assert not map_arrays(file, verify=True).arrays["small"].any()
