"""The benchmark of precompute runs from its command line and records both comparisons."""

import json
import subprocess
import sys
from pathlib import Path


def test_filling_is_measured_against_loading(photo_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "precompute", "--data", str(photo_folder)]
    sizes = ["--resolution", "32", "--batch", "8", "--images", "8", "--views", "2", "--repeats", "1", "--threads", "1"]
    report = tmp_path / "report.json"
    subprocess.run([*command, *sizes, "--backends", "torchvision", "--json", str(report)], check=True, timeout=300)
    (pairs,) = json.loads(report.read_text())["against_loader"]
    assert pairs["name"] == "torchvision"
    assert pairs["ratio"] > 0
