"""The benchmark of precompute: equal work on both sides of its comparisons, and both recorded by its command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks._shared.benchmark import perform
from benchmarks.precompute import Precompute
from benchmarks.precompute.decode import rows_of_passes, shared_rows
from pipeline.data.index import Index


def test_both_orders_are_the_same_views_of_the_same_images(photo_index: Index) -> None:
    settings = Precompute(Path(), views=4, batch=24, images=20)
    found = [
        np.concatenate([np.column_stack((rows.ids, rows.views, rows.boxes)) for rows in requests])
        for requests in (shared_rows(photo_index, settings), rows_of_passes(photo_index, settings))
    ]
    assert found[0].shape == (80, 6)
    assert np.array_equal(*(np.unique(rows, axis=0) for rows in found))
    assert np.array_equal(found[0][:, 0], np.repeat(found[1][:20, 0], 4)), "all views of an image together"
    assert max(len(rows) for rows in shared_rows(photo_index, settings)) == settings.batch


def test_the_command_measures_what_is_asked_for(photo_folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    sizes = {"views": 4, "resolution": 16, "batch": 24, "threads": 1, "images": 6, "repeats": 1}
    perform(Precompute(photo_folder, ("torchvision",), **sizes, json=report))
    (pairs,) = json.loads(report.read_text())["pairs"]
    assert pairs["name"] == "torchvision"
    assert pairs["ratio"] == pytest.approx(pairs["a"][0] / pairs["b"][0])


def test_filling_is_measured_against_loading(photo_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "precompute", "--data", str(photo_folder)]
    sizes = ["--resolution", "32", "--batch", "8", "--images", "8", "--views", "2", "--repeats", "1", "--threads", "1"]
    report = tmp_path / "report.json"
    subprocess.run([*command, *sizes, "--backends", "torchvision", "--json", str(report)], check=True, timeout=300)
    (pairs,) = json.loads(report.read_text())["against_loader"]
    assert pairs["name"] == "torchvision"
    assert pairs["ratio"] > 0
