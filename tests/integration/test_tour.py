"""Does what the documents show run as it stands? The tour from top to bottom, and lines that need no data."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from documents import HOUSE, README, TOUR, blocks_of, commands_of

PLACE = "runs/tour"  # where the tour works; here a folder of the test
QUICK = {"launch/imagenet.py --help", "launch/imagenet.py smoke --out runs/smoke"}


def run(command: list[str]) -> str:
    """Its output, after it ended well."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOUSE)}
    found = subprocess.run(command, cwd=HOUSE, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{command}\n{found.stdout}{found.stderr}"
    return found.stdout + found.stderr


def run_line(line: str) -> str:
    """A line of a shell block, in the house's folder, by this Python."""
    return run(["bash", "-c", f'python() {{ "{sys.executable}" "$@"; }}\n{line}'])


def test_the_tour_runs_as_it_stands(tmp_path: Path) -> None:
    told: dict[str, str] = {}
    for block in blocks_of(TOUR):
        text = block.text.replace(PLACE, str(tmp_path))
        assert PLACE in block.text or "pipeline.methods" in block.text
        if block.language == "python":
            told[text] = run([sys.executable, "-c", text])
            continue
        for line in block.commands():
            told[line] = run_line(line.replace(PLACE, str(tmp_path)))
    outputs = list(told.values())
    for expected in ("whole", "16 rows computed again", "(120, 10)", "'logits': (2, 10)", "CRD"):
        assert any(expected.lower() in output.lower() for output in outputs), f"{expected}\n{outputs}"
    assert (tmp_path / "student" / "student.pt").is_file()


@pytest.mark.parametrize("line", sorted(QUICK))
def test_a_line_of_readme_that_needs_no_data_runs(line: str, tmp_path: Path) -> None:
    (shown,) = (command for command in commands_of(README) if command.split("#")[0].strip() == f"python {line}")
    assert run_line(shown.replace("runs/smoke", str(tmp_path / "smoke"))) != ""
