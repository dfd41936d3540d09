"""Every recipe as a real job, for two steps: the whole program with each method, on two ranks and small networks."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from jobs import ForkedJob, free_port, lines_of, run_to_end, state_of

from launch.imagenet import all_recipes, parse_config
from pipeline.config import Files
from pipeline.fit import fit

# a random teacher of a family with four stages; 24 images in 4 classes, two steps, one evaluation, one checkpoint
_SMALL = [
    *("--backend", "synthetic", "--synthetic-samples", "24", "--synthetic-classes", "4", "--resolution", "64"),
    *("--batch", "8", "--max-steps", "2", "--eval-batch", "12", "--log-every", "1"),
    *("--threads", "1", "--device", "cpu", "--no-channels-last", "--student", "demo_student"),
]
_TEACHER = ["--teacher", "demo_teacher@random"]
_FEW = {"--num-negatives": "16", "--feature-dim": "8", "--mid-channels": "16", "--loops": "2"}
CONFIGS = {name: recipe(Files(out=Path("run"))) for name, recipe in all_recipes().items()}
# on the same small networks, recipes that differ in the names of networks alone are one
RECIPES = {str(replace(config, recipe="", student="", teacher=None)): name for name, config in CONFIGS.items()}.values()


def fit_every_recipe() -> None:
    """One rank: the jobs one after the other in one process, since starting is what costs."""
    for port, *arguments in json.loads(sys.argv[1]):
        os.environ["MASTER_PORT"] = port  # of its own: rank 1 must not meet the group before, which rank 0 is closing
        print(f"recipe {arguments[0]}", flush=True)  # the last of the log is the one that failed
        assert fit(parse_config(arguments)) == "done"


def command_line(recipe: str, out: Path) -> list[str]:
    config = CONFIGS[recipe]
    hyper_parameters = {**config.method_args, **config.method_args.get("base_args", {})}
    few = [
        word for flag, value in _FEW.items() if flag[2:].replace("-", "_") in hyper_parameters for word in (flag, value)
    ]
    return [recipe, "--out", str(out / recipe), *_SMALL, *(_TEACHER if config.teacher else []), *few]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    lines = json.dumps([[str(free_port()), *command_line(recipe, folder)] for recipe in RECIPES])
    run_to_end(ForkedJob([lines], log=folder / "log", size=2, entry=fit_every_recipe))
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_steps_end_with_a_student(recipe: str, runs: Path) -> None:
    run = runs / recipe
    assert state_of(run)["state"] == "done"
    train = [line for line in lines_of(run / "metrics.jsonl") if line["kind"] == "train"]
    assert [line["step"] for line in train] == [1, 2]
    saved = json.loads((run / "config.json").read_text())
    assert (saved["recipe"], saved["method"]) == (recipe, CONFIGS[recipe].method)
    assert (run / "student.pt").stat().st_size > 0
