"""Does what the documents show run as it stands? The tour from top to bottom, and lines that need no data."""

from collections.abc import Callable
from pathlib import Path

import pytest
from documents import README, TOUR, blocks_of, commands_of, program_and_arguments
from jobs import ForkedJob, run_to_end

from launch import imagenet, prepare
from pipeline.methods import __main__ as methods
from precompute import __main__ as filling
from stores import __main__ as storing

PLACE = "runs/tour"  # where the tour works; here a folder of the test
ENTRIES: dict[str, Callable[[], object]] = {
    "launch/imagenet.py": imagenet.main,
    "launch/prepare.py": prepare.main,
    "-m precompute": filling.main,
    "-m stores": storing.main,
    "-m pipeline.methods": methods.main,
}


def run(line: str, log: Path) -> str:
    """What the program of a shell line prints, after it ended well."""
    program, arguments = program_and_arguments(line)
    return run_to_end(ForkedJob(arguments, log=log, entry=ENTRIES[program]))


def test_the_tour_runs_as_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    for block in blocks_of(TOUR):
        moved = block.moved(PLACE, str(tmp_path))
        if moved.language == "python":
            exec(moved.text, {})
            told.append(capsys.readouterr().out)
        else:
            told += [run(line, tmp_path / f"log-{len(told)}-{number}") for number, line in enumerate(moved.commands())]
    for expected in ("/store: whole", "16 rows computed again", "(120, 10)", "'logits': (2, 10)", "arXiv"):
        assert [output for output in told if expected in output] != [], f"{expected} in none of {told}"
    assert (tmp_path / "student" / "student.pt").is_file()


@pytest.mark.parametrize("line", ["--help", "smoke --out runs/smoke"])
def test_a_line_of_readme_that_needs_no_data_runs(line: str, tmp_path: Path) -> None:
    (shown,) = (known for known in commands_of(README) if known.split("#")[0].split()[2:] == line.split())
    assert run(shown.replace("runs/smoke", str(tmp_path / "smoke")), tmp_path / "log") != ""
