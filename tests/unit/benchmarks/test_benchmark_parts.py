"""Does a new benchmark cost one file, and do the others keep their flags' speed and their reports' fields?"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import benchmarks
from benchmarks.__main__ import main
from benchmarks._shared.benchmark import Benchmark
from benchmarks.codecs import Codecs
from benchmarks.epoch import Epoch
from benchmarks.kernels import Kernels
from benchmarks.loader import Loader
from benchmarks.precompute import Precompute
from benchmarks.step import Step
from benchmarks.store import Store
from pipeline.core import parts
from pipeline.core.command import run_command

NEW = '''"""Is counting fast?

More of it.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from benchmarks._shared.benchmark import Benchmark
from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0


@dataclass(frozen=True)
class Counting(Benchmark):
    """Counts to a number."""

    to: Annotated[int, About("Last number.", ABOVE_0)] = 3
    aloud: Annotated[bool, About("Prints them.", free=True)] = False

    def run(self) -> dict[str, Any]:
        return {"settings": self.settings(), "counted": list(range(1, self.to + 1))}
'''


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark in a folder that is no part of the project."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "counting.py").write_text(NEW)
    monkeypatch.setattr(benchmarks, "__path__", [*benchmarks.__path__, str(tmp_path / "parts")])
    monkeypatch.delitem(sys.modules, "benchmarks.counting", raising=False)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[object, str, str]]:
    def run_here(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            run_command(main)
        return end.value.code, *capfd.readouterr()

    return run_here


@pytest.mark.usefixtures("counting")
def test_a_new_benchmark_costs_one_file(run: Callable[..., tuple[object, str, str]], tmp_path: Path) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert "  counting    Is counting fast?\n" in out
    code, out, _ = run("counting", "--help")
    assert code == 0
    for words in ("Counts to a number.", "--to INT", "Last number. (default: 3)", "--json"):
        assert words in out
    report = tmp_path / "report.json"
    assert run("counting", "--to", 4, "--aloud", "--json", report)[0] == 0
    written = json.loads(report.read_text())
    assert written.pop("machine")["packages"]["torch"]
    assert written == {"settings": {"to": 4}, "counted": [1, 2, 3, 4]}
    assert run("counting", "--to", 0) == (2, "", "error: --to must be above 0, got 0\n")


def test_every_part_is_a_benchmark_and_is_listed(run: Callable[..., tuple[object, str, str]]) -> None:
    names = parts.names(benchmarks)
    assert names == ["codecs", "epoch", "gpu", "kernels", "loader", "precompute", "step", "store"]
    kinds = [parts.class_of(parts.load(benchmarks, "benchmark", name), Benchmark) for name in names]
    assert [kind.__name__.lower() for kind in kinds] == names
    lines = run("--help")[1].splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == names


HELP_OF_ALL = """
import sys
import benchmarks
from benchmarks.__main__ import main
from pipeline.core import parts
for name in parts.names(benchmarks):
    sys.argv = ["benchmarks", name, "--help"]
    try:
        main()
    except SystemExit as end:
        assert end.code == 0, name
    assert "torch" not in sys.modules, name
"""


def test_help_does_without_torch() -> None:
    """It takes seconds to import, and to choose flags must not."""
    subprocess.run([sys.executable, "-c", HELP_OF_ALL], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("file", "benchmark"),
    [
        ("codecs", Codecs(Path("d"), "t")),
        ("epoch-2-cores", Epoch(Path("d"))),
        ("kernels-2-cores", Kernels()),
        ("loader-2-cores", Loader(Path("d"))),
        ("precompute-2-cores", Precompute(Path("d"))),
        ("step-2-cores", Step()),
        ("store-2-cores", Store()),
    ],
)
def test_a_reports_settings_have_the_fields_of_those_that_are_kept(file: str, benchmark: Benchmark) -> None:
    kept = json.loads((Path(benchmarks.__file__).parent / "results" / f"{file}.json").read_text())["settings"]
    kept = {"data" if name == "train_dir" else name: value for name, value in kept.items()}  # renamed as it is written
    assert sorted(benchmark.settings()) == sorted(kept)
