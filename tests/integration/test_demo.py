"""Does the demo go through, with images, epochs and networks so few that nothing is learned?"""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def test_the_demo_trains_three_networks_and_draws_its_picture(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    size = ["--epochs", "1", "--train-per-class", "7", "--val-per-class", "2"]
    command = [sys.executable, str(REPOSITORY / "launch" / "demo.py"), "--out", str(out), *size]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
    summaries = {
        run: json.loads((out / run / "summary.json").read_text()) for run in ("teacher", "labels", "distilled")
    }
    assert all(summary["last"]["num_samples"] == 20 for summary in summaries.values())
    assert summaries["distilled"]["teacher"] == f"demo_teacher@{out / 'teacher' / 'student.pt'}"
    assert all(f"{summary['last']['top1']:.1f} %" in found.stdout for summary in summaries.values())
    with Image.open(out / "demo.png") as picture:
        assert picture.size[0] > 1000
