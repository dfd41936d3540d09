"""The generated data set: a pure function of its spec, complete or not there."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import DataError
from pipeline.data import demo_images
from pipeline.data.demo_images import CLASSES, DemoSpec, draw_image, write_demo
from pipeline.data.index import check_same_classes
from pipeline.data.scan import scan_folder

SMALL = DemoSpec(train_per_class=3, val_per_class=2)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "images"
    assert write_demo(out, SMALL)
    return out


def test_folders_can_be_indexed_and_have_the_same_classes(small: Path) -> None:
    train, val = scan_folder(small / "train")[0], scan_folder(small / "val")[0]
    check_same_classes(train, val)
    assert train.classes == CLASSES == tuple(sorted(CLASSES))
    assert (len(train), len(val)) == (30, 20)
    assert min(train.widths.min(), train.heights.min()) >= 96
    assert max(train.widths.max(), train.heights.max()) <= 256
    assert len(set(zip(train.widths.tolist(), train.heights.tolist(), strict=True))) > 25


@pytest.mark.parametrize("name", CLASSES)
def test_an_image_is_a_function_of_its_key(name: str) -> None:
    image, quality = draw_image(name, 0, 5, 7)
    again, quality_again = draw_image(name, 0, 5, 7)
    assert np.array_equal(np.asarray(image), np.asarray(again))
    assert quality == quality_again
    assert np.asarray(image).std() > 8
    for other in (draw_image(name, 1, 5, 7), draw_image(name, 0, 6, 7), draw_image(name, 0, 5, 8)):
        assert other[0].size != image.size or not np.array_equal(np.asarray(other[0]), np.asarray(image))


def test_more_images_do_not_change_the_first(small: Path, tmp_path: Path) -> None:
    write_demo(tmp_path / "more", DemoSpec(train_per_class=4, val_per_class=1))
    for name in CLASSES:
        first, second = (root / "train" / name / "00002.jpg" for root in (small, tmp_path / "more"))
        assert first.read_bytes() == second.read_bytes()


def test_several_processes_draw_the_same(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_images, "_ONE_PROCESS", 0)
    steps: list[tuple[int, int]] = []
    write_demo(tmp_path / "same", SMALL, on_progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (50, 50)
    for path in small.rglob("*.jpg"):
        assert path.read_bytes() == (tmp_path / "same" / path.relative_to(small)).read_bytes()


def test_the_same_data_set_is_left_alone(small: Path) -> None:
    before = (small / "train" / "dots" / "00000.jpg").stat().st_mtime_ns
    assert not write_demo(small, SMALL)
    assert (small / "train" / "dots" / "00000.jpg").stat().st_mtime_ns == before


def test_something_else_is_not_overwritten(small: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds something else"):
        write_demo(small, DemoSpec(train_per_class=9))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(DataError, match=r"no demo\.json"):
        write_demo(tmp_path / "mine", SMALL)
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path / "images", SMALL, on_progress=fail)
    assert os.listdir(tmp_path) == []


def test_the_marker_says_what_was_drawn(small: Path) -> None:
    found = json.loads((small / "demo.json").read_text())
    assert found == {
        "kind": "reflux demo images",
        "version": 1,
        "train_per_class": 3,
        "val_per_class": 2,
        "seed": 0,
    }


@pytest.mark.parametrize("field", ["train_per_class", "val_per_class"])
def test_a_count_below_one_is_refused_by_name(field: str) -> None:
    with pytest.raises(DataError, match=f"{field} must be at least 1, got 0"):
        DemoSpec(**{field: 0})
