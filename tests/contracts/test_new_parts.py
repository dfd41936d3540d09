"""A new part costs its own file, a method its two, and the whole program takes it: no other file knows of it.

Each file lies in a folder of the test. That each kind keeps its contract stands with the kind: README's method and
recipe in test_readme_parts, a policy in test_policies, a model source in test_models, a benchmark in
test_benchmark_parts. Here parts of every kind meet in a run, and in what the command lines say of them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from recorded import fill, losses_of, train

import benchmarks
from benchmarks.__main__ import main as benchmark
from launch import recipes
from pipeline import losses, methods
from pipeline.core.command import run_command
from pipeline.core.errors import ConfigError
from pipeline.data import policies
from pipeline.models import sources

METHOD = {
    (losses, "gap"): """
from dataclasses import dataclass
from typing import Annotated

from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0
from pipeline.losses._shared.record import LOGITS, Needs, TermLoss


@dataclass(frozen=True)
class GapLoss(TermLoss):
    \"\"\"The distance of logits.\"\"\"

    paper = "none"

    power: Annotated[float, About("to which the distance is raised.", ABOVE_0)] = 2.0

    @property
    def needs(self) -> Needs:
        return LOGITS
""",
    (methods, "gap"): """
from torch import Tensor

from pipeline.losses.gap import GapLoss
from pipeline.methods._shared.method import Method, MethodInput


class Gap(Method[GapLoss]):
    \"\"\"See its record.\"\"\"

    def forward(self, batch: MethodInput) -> Tensor:
        return (batch.student.logits - batch.taught.logits).abs().pow(self.loss.power).mean()
""",
}
POLICY = {
    (policies, "corner"): """
from dataclasses import dataclass

import numpy as np

from pipeline.data.policy import Policy


@dataclass(frozen=True)
class Corner(Policy):
    kind = "corner"

    def draw(self, ids, views, widths, heights, plan_seed):
        return np.stack((ids * 0, ids * 0, (heights + 1) // 2, (widths + 1) // 2), axis=1), (ids + views) % 2 == 0


POLICY = Corner()
"""
}
SOURCE = {
    (sources, "hub"): """
import torch
from torch import nn

from pipeline.core.errors import unknown_name
from pipeline.models.source import ModelSource


class Hub(ModelSource):
    prefix = "hub:"
    form = "hub:NAME@WEIGHTS"
    example_weights = "ones"

    def check(self, name, published):
        if name != "small":
            raise unknown_name("model of the hub", name, ["small"])

    def build(self, name, *, num_classes):
        return nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

    def fetch(self, name, published, *, num_classes):
        network = self.build(name, num_classes=num_classes)
        return {key: torch.ones_like(value) for key, value in network.state_dict().items()}


SOURCE = Hub()
"""
}
RECIPE = {
    (recipes, "mine"): """
from launch.recipes._shared.recipe import Distilled, recipe
from pipeline.config import Optimisation, Settings, Views
from pipeline.losses._shared.pairs import Pair
from pipeline.losses.gap import GapLoss


@recipe(published="99.99 (nowhere)")
def gap_small() -> Distilled:
    \"\"\"The distance of logits, on a small network.\"\"\"
    settings = Settings(views=Views(policy="corner", resolution=32), optimisation=Optimisation(epochs=2, batch=8))
    return Distilled(Pair("hub:small", "hub:small@ones"), GapLoss(power=1.0), settings)
"""
}
BENCHMARK = {
    (benchmarks, "counting"): """
\"\"\"Is counting fast?\"\"\"

from dataclasses import dataclass
from typing import Annotated, Any

from benchmarks._shared.benchmark import Benchmark
from pipeline.core.fields import About


@dataclass(frozen=True)
class Counting(Benchmark):
    \"\"\"Counts to a number.\"\"\"

    to: Annotated[int, About("Last number.")] = 3

    def run(self) -> dict[str, Any]:
        return {"settings": self.settings(), "counted": list(range(1, self.to + 1))}
"""
}
SYNTHETIC = "--backend synthetic --synthetic-samples 16 --synthetic-classes 4 --device cpu --threads 1"


def test_what_new_parts_cost() -> None:
    assert [len(part) for part in (METHOD, POLICY, SOURCE, RECIPE, BENCHMARK)] == [2, 1, 1, 1, 1]


@pytest.fixture
def _parts(add_part: Callable[[ModuleType, str, str], None]) -> None:
    for (package, name), text in (METHOD | POLICY | SOURCE | RECIPE | BENCHMARK).items():
        add_part(package, name, text.lstrip())


@pytest.mark.usefixtures("_parts")
class TestPrograms:
    """Command lines, in this process."""

    def test_a_run_of_new_parts_alone(self, tmp_path: Path) -> None:
        assert train(f"gap_small {SYNTHETIC} --log-every 1", "--out", tmp_path / "run") == 0
        saved = json.loads((tmp_path / "run" / "config.json").read_text())
        assert (saved["recipe"], saved["student"], saved["teacher"]) == ("gap_small", "hub:small", "hub:small@ones")
        assert (saved["method"], saved["method_args"]["power"]) == ("gap", 1.0)
        assert saved["views"]["policy"] == "corner"
        lines = losses_of(tmp_path / "run")
        assert [line["step"] for line in lines] == [1, 2, 3, 4]
        assert all(line["method"] > 0 for line in lines)

    def test_a_store_of_them_teaches(self, tmp_path: Path) -> None:
        where = ("--store", tmp_path / "store")
        assert fill(f"--teacher hub:small@ones --policy corner --resolution 32 --batch 8 {SYNTHETIC}", *where) == 0
        stored = f"gap_small {SYNTHETIC} --teacher-source stored --power 2"
        assert train(stored, *where, "--out", tmp_path / "run") == 0
        saved = json.loads((tmp_path / "run" / "config.json").read_text())
        assert (saved["teaching"]["teacher_source"], saved["method_args"]["power"]) == ("stored", 2.0)

    def test_a_recipes_help_is_made_of_its_parts(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert train("--help") == 0
        assert "gap_small" in capsys.readouterr().out
        assert train("gap_small --help") == 0
        shown = " ".join(capsys.readouterr().out.split())
        for words in (
            "The distance of logits, on a small network.",
            "--power FLOAT",
            "to which the distance is raised. (default: 1.0)",
            "(default: corner)",
            "(default: hub:small@ones)",
        ):
            assert words in shown

    def test_names_beside_theirs_are_answered_with_theirs(self, tmp_path: Path) -> None:
        for flags, told in (("--policy corne", "'corner'"), ("--student hub:smal", "'small'")):
            with pytest.raises(ConfigError, match=f"Did you mean {told}"):
                train(f"gap_small {SYNTHETIC} {flags}", "--out", tmp_path / "run")
        with pytest.raises(ConfigError, match="Did you mean 'gap_small'"):
            train("gap_smal", "--out", tmp_path / "run")

    def test_a_benchmark_is_listed_with_its_flags(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for line, words in (("--help", "Is counting fast?"), ("counting --help", "Last number. (default: 3)")):
            monkeypatch.setattr("sys.argv", ["benchmarks", *line.split()])
            with pytest.raises(SystemExit) as end:
                run_command(benchmark)
            assert end.value.code == 0
            assert words in capsys.readouterr().out
