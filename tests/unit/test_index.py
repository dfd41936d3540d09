"""The dataset index: fingerprint, subsets, files that are not an index, and its cost at ImageNet's size."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.arrays import write_arrays
from pipeline.core.errors import DataError
from pipeline.data.index import Index, SampleRecord, check_same_classes, load_index, pack_index, select_subset
from pipeline.data.scan import scan_folder

CLASSES = ("ant", "bee", "cat")
COLUMNS = ("ids", "labels", "widths", "heights", "sizes", "path_ends", "path_bytes")


def make_records() -> list[SampleRecord]:
    return [
        SampleRecord(f"{CLASSES[label]}/{number:02d}é.jpg", label, 100 + number, 80 + label, 5000 + number)
        for label in range(3)
        for number in range(10 + label)
    ]


@pytest.fixture
def index() -> Index:
    return pack_index(Path("/images"), CLASSES, make_records())


def assert_same(first: Index, second: Index) -> None:
    for name in ("classes", "fingerprint", "num_parent"):
        assert getattr(first, name) == getattr(second, name), name
    for name in COLUMNS:
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


def test_there_and_back(index: Index, tmp_path: Path) -> None:
    index.save(tmp_path / "a.index.h5")
    loaded = load_index(tmp_path / "a.index.h5")
    assert_same(loaded, index)
    assert loaded.root == Path("/images")
    assert loaded.path_of(12) == "/images/bee/02é.jpg"
    assert load_index(tmp_path / "a.index.h5", root=Path("/moved")).path_of(0) == "/moved/ant/00é.jpg"


def test_the_fingerprint_is_equal_after_a_move(photo_folder: Path, photo_index: Index, tmp_path: Path) -> None:
    shutil.copytree(photo_folder, tmp_path / "elsewhere")
    assert_same(scan_folder(tmp_path / "elsewhere")[0], photo_index)


@pytest.mark.parametrize("field", ["path", "label", "width", "height", "size_bytes"])
def test_the_fingerprint_covers_every_field(index: Index, field: str) -> None:
    records = make_records()
    other = {**vars(records[3]), field: "ant/03è.jpg" if field == "path" else vars(records[3])[field] + 1}
    records[3] = SampleRecord(**other)
    assert pack_index(Path("/images"), CLASSES, records).fingerprint != index.fingerprint


def test_the_fingerprint_covers_class_names_and_not_the_place(index: Index) -> None:
    assert pack_index(Path("/elsewhere"), CLASSES, make_records()).fingerprint == index.fingerprint
    assert pack_index(Path("/images"), ("ant", "bee", "cow"), make_records()).fingerprint != index.fingerprint


@pytest.mark.parametrize("rows", [[0], [4, 5, 31], [], list(range(33))])
def test_a_subset_keeps_ids_and_fingerprint(index: Index, rows: list[int], tmp_path: Path) -> None:
    part = index.subset(np.array(rows, np.int64))
    assert part.ids.tolist() == rows
    assert (part.fingerprint, part.num_parent, part.classes) == (index.fingerprint, 33, CLASSES)
    assert [part.path_of(sample_id) for sample_id in rows] == [index.path_of(sample_id) for sample_id in rows]
    part.save(tmp_path / "part.h5")
    assert_same(load_index(tmp_path / "part.h5"), part)


def test_a_subset_of_a_subset_keeps_the_first_parents_ids(index: Index) -> None:
    part = index.subset(np.array([3, 8, 20, 30])).subset(np.array([1, 3]))
    assert part.ids.tolist() == [8, 30]
    assert part.rows_of(np.array([30, 8])).tolist() == [1, 0]
    assert part.path_of(30) == index.path_of(30)


def test_an_id_outside_a_subset_is_an_error_not_a_neighbour(index: Index) -> None:
    part = index.subset(np.array([3, 8, 20]))
    for stranger in (0, 4, 21, 99):
        with pytest.raises(DataError, match="3 of 33 samples"):
            part.rows_of(np.array([3, stranger]))


def test_class_names_and_shares(index: Index) -> None:
    assert select_subset(index, "bee").ids.tolist() == list(range(10, 21))
    assert set(select_subset(index, "cat, ant").labels.tolist()) == {0, 2}
    half = select_subset(index, "50%")
    assert np.bincount(half.labels).tolist() == [5, 6, 6]
    assert np.bincount(select_subset(index, "0.1%").labels).tolist() == [1, 1, 1]
    assert_same(select_subset(index, "100%"), index)
    assert np.array_equal(select_subset(index, "50%").ids, half.ids)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("bees", "bees"),
        ("ant,wasp", "wasp"),
        ("", "''"),
        (",", "','"),
        ("0%", "'0%'"),
        ("101%", "'101%'"),
        ("-5%", "'-5%'"),
        ("x%", "'x%'"),
        ("nan%", "'nan%'"),
    ],
)
def test_a_wrong_subset_is_refused_with_its_value(index: Index, spec: str, said: str) -> None:
    with pytest.raises(DataError, match="--subset") as caught:
        select_subset(index, spec)
    assert said in str(caught.value)


def test_different_class_lists_are_refused_with_both_sides(index: Index) -> None:
    check_same_classes(index, index)
    other = pack_index(Path("/val"), ("ant", "bee", "dog"), make_records())
    with pytest.raises(DataError, match="same classes") as caught:
        check_same_classes(index, other)
    assert "cat" in str(caught.value)
    assert "dog" in str(caught.value)


def test_a_damaged_index_is_named(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "a.index.h5"
    index.save(path)
    whole = path.read_bytes()
    place = whole.index(b"ant/00")
    path.write_bytes(whole[:place] + b"X" + whole[place + 1 :])
    with pytest.raises(DataError, match=r"a\.index\.h5 is damaged"):
        load_index(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.index\.h5"):
        load_index(path)


def test_foreign_files_are_named(tmp_path: Path) -> None:
    text = tmp_path / "text.index.h5"
    text.write_text("hello")
    with pytest.raises(DataError, match=r"text\.index\.h5"):
        load_index(text)
    with pytest.raises(DataError, match=r"none\.index\.h5"):
        load_index(tmp_path / "none.index.h5")
    foreign = tmp_path / "foreign.h5"
    write_arrays(foreign, {"x": np.arange(3)}, {"kind": "something else"})
    with pytest.raises(DataError, match=r"foreign\.h5 .* not a dataset index \(kind: 'something else'\)"):
        load_index(foreign)


def test_an_index_of_another_version_is_refused_with_both_numbers(index: Index, tmp_path: Path) -> None:
    path = tmp_path / "new.index.h5"
    write_arrays(path, {name: getattr(index, name) for name in COLUMNS}, {"kind": "reflux dataset index", "version": 9})
    with pytest.raises(DataError, match="index version 9, this program reads 1"):
        load_index(path)


BIG = """
import resource, sys, time
from pathlib import Path
import numpy as np
from pipeline.data.index import load_index
from pipeline.data.order import Order
from pipeline.data.plan import Plan
from pipeline.data.policy import get_policy

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

before = resident()
started = time.process_time()
index = load_index(Path(sys.argv[1]))
opened = time.process_time() - started
order = Order(index.ids, 0, 32, 8)
ids = order.permutation(0)[:256]
rows = index.rows_of(ids)
Plan(get_policy("imagenet_train"), 0).rows(ids, np.zeros(256), index.widths[rows], index.heights[rows])
paths = [index.path_of(int(sample_id)) for sample_id in ids]
(peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(len(index), opened, (resident() - before) / 1e6, int(peak.split()[1]) * 1024 / 1e6)
"""


def test_an_index_of_imagenets_size_opens_fast_and_small(tmp_path: Path) -> None:
    num = 1_281_167
    numbers = np.char.zfill(np.arange(num).astype("S7"), 11)
    names = np.char.add(np.array(b"n00000000/n00000000_"), numbers).astype("S31")
    columns = {
        "ids": np.arange(num),
        "labels": (np.arange(num) * 1000 // num).astype(np.int32),
        "widths": np.full(num, 500, np.int32),
        "heights": np.full(num, 375, np.int32),
        "sizes": np.full(num, 110_000),
        "path_ends": np.arange(num + 1) * 31,
        "path_bytes": names.view(np.uint8),
    }
    classes = tuple(f"n{label:08d}" for label in range(1000))
    Index(root=tmp_path, classes=classes, fingerprint="0" * 64, num_parent=num, **columns).save(tmp_path / "big.h5")
    command = [sys.executable, "-c", BIG, str(tmp_path / "big.h5")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout.split()
    assert int(answer[0]) == num
    assert float(answer[1]) <= 5, "seconds to open, CRC-32 of every byte included"
    assert float(answer[2]) <= 600, "megabytes of metadata that stay resident"
    assert float(answer[3]) <= 900, "megabytes at the peak, with the interpreter"
    print("open, s; resident, MB; peak, MB:", *answer[1:])
