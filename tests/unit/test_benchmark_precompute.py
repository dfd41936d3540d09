"""Does the comparison of shared and separate decodes deliver the same number of views of the same images?"""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import precompute
from benchmarks.precompute import DecodeSettings, rows_of_passes, shared_rows
from pipeline.data.index import Index


def test_both_orders_are_the_same_views_of_the_same_images(photo_index: Index) -> None:
    settings = DecodeSettings(Path(), views=4, batch=24)
    pairs = []
    for requests in (shared_rows(photo_index, settings), rows_of_passes(photo_index, settings)):
        rows = list(itertools.islice(requests, 4 * len(photo_index) // settings.batch))
        pairs.append(np.concatenate([np.stack((part.ids, part.views, part.boxes[:, 0]), 1) for part in rows]))
        assert all(len(part) == settings.batch for part in rows)
    assert np.array_equal(*(np.unique(pair, axis=0) for pair in pairs))
    assert np.array_equal(pairs[0][:8, 0], np.repeat(photo_index.ids[:2], 4))


def test_the_command_measures_what_is_asked_for(photo_folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    precompute(
        photo_folder, report, ("torchvision",), views=4, resolution=16, batch=24, threads=1, window=24, repeats=1
    )
    (pairs,) = json.loads(report.read_text())["pairs"]
    assert pairs["name"] == "torchvision"
    assert pairs["ratio"] == pytest.approx(pairs["a"][0] / pairs["b"][0])
