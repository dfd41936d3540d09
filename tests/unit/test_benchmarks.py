"""Do the benchmarks run, compare like with like, and write what they say?"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks._shared.pairs import alternate, format_figure
from benchmarks.loader import Loader
from benchmarks.loader.measure import measure_loaders
from benchmarks.store import Store
from benchmarks.store.measure import measure_store
from benchmarks.store.memory import measure_open


def test_pairs_alternate_and_take_the_median_of_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []
    figures = iter([10.0, 5.0, 4.0, 8.0, 9.0, 3.0])

    def measure(name: str) -> float:
        calls.append(name)
        return next(figures)

    pairs = alternate("x", "u", lambda: measure("a"), lambda: measure("b"), 3)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert pairs.a == (10.0, 8.0, 9.0)
    assert pairs.b == (5.0, 4.0, 3.0)
    assert pairs.ratio == 2.0
    assert capsys.readouterr().out.startswith("x, pair 1 of 3: 10 and 5 u\n")


@pytest.mark.parametrize(
    ("value", "text"), [(0.26314, "0.263"), (35.04, "35"), (1238.6, "1,239"), (190432.0, "190,432")]
)
def test_figures_keep_three_digits(value: float, text: str) -> None:
    assert format_figure(value) == text


def test_a_backend_is_measured_on_the_folder_that_is_named(
    photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Loader(photo_folder, ("dali",), resolution=32, batch=8, threads=1, batches=2, repeats=1)
    (pairs,) = measure_loaders(settings, tmp_path) or (None,)
    if pairs is None:
        assert "left out" in capsys.readouterr().out
        return
    assert pairs.name == "dali"
    assert min(pairs.a + pairs.b) > 0


def test_an_existing_report_and_an_unknown_backend_are_refused(photo_folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text("{}")
    for flags, message in ((["--json", str(report)], "exists"), (["--backends", "dalli"], "Did you mean 'dali'?")):
        command = [sys.executable, "-m", "benchmarks", "loader", "--data", str(photo_folder), *flags]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert found.returncode == 2
        assert message in found.stderr
        assert "Traceback" not in found.stderr
    assert json.loads(report.read_text()) == {}


def test_the_store_is_measured_against_what_one_would_use_instead(tmp_path: Path) -> None:
    figures = measure_store(Store(rows=8200, shard_rows=4096, batch=64, repeats=1), tmp_path)
    warm = {pairs.name for pairs in figures.warm}
    assert {"mmap / np.memmap", "mmap, checked / h5py", "pread / h5py", "mmap / h5py, gzip"} <= warm
    assert all(pairs.name in figures.disk_bytes for pairs in figures.cold)
    assert min(figure for pairs in (*figures.warm, *figures.cold, *figures.write) for figure in pairs.a + pairs.b) > 0


def test_opening_a_store_is_measured_in_processes_of_their_own(tmp_path: Path) -> None:
    figures = measure_open(tmp_path, views=2, rows=70_000)
    assert (figures["views"], figures["rows"]) == (2, 70_000)
    assert 0 < figures["mmap_open_s"] <= figures["mmap_open_and_first_view_s"]
    assert figures["pread_one_view_mb"] < 50
