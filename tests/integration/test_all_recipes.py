"""Every recipe as a real job, for two steps: the whole program with each method, on two ranks and small networks.

Their losses are those of commit 97e98b7: `PYTHONPATH=.:tests python
tests/integration/test_all_recipes.py` adds those of recipes that came later.
"""

import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from jobs import ForkedJob, free_port, lines_of, run_to_end, state_of
from recorded import GOLDEN, arithmetic, check_equal, losses_of, read, write

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
LOSSES = GOLDEN / "recipe_losses.json"
CONFIGS = {name: recipe(Files(out=Path("run"))) for name, recipe in all_recipes().items()}
# on the same small networks, recipes that differ in the names of networks alone are one: the one with recorded losses
RECIPES = {
    str(replace(CONFIGS[name], recipe="", student="", teacher=None)): name
    for name in sorted(CONFIGS, key=lambda name: (name in read(LOSSES), name))
}.values()


def fit_every_recipe() -> None:
    """One rank: the jobs one after the other in one process, since starting is what costs."""
    for port, *arguments in json.loads(sys.argv[1]):
        os.environ["MASTER_PORT"] = port  # of its own: rank 1 must not meet the group before, which rank 0 is closing
        print(f"recipe {arguments[0]}", flush=True)  # the last of the log is the one that failed
        assert fit(parse_config(arguments)) == "done"


def command_line(recipe: str, out: Path) -> list[str]:
    config = CONFIGS[recipe]
    hyper_parameters = {**config.method_args, **config.method_args.get("base_args", {})}
    large = [flag for flag in _FEW if hyper_parameters.get(flag[2:].replace("-", "_")) is not None]
    few = [word for flag in large for word in (flag, _FEW[flag])]
    return [recipe, "--out", str(out / recipe), *_SMALL, *(_TEACHER if config.teacher else []), *few]


def run_all(folder: Path) -> None:
    lines = json.dumps([[str(free_port()), *command_line(recipe, folder)] for recipe in RECIPES])
    run_to_end(ForkedJob([lines], log=folder / "log", size=2, entry=fit_every_recipe))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    run_all(folder)
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


def test_two_steps_lose_what_they_lost(runs: Path) -> None:
    recorded = read(LOSSES)
    made_with = recorded.pop("made_with")
    for recipe, losses in recorded.items():
        check_equal(losses_of(runs / recipe), losses, made_with, f"two steps of {recipe}")


def record_new() -> None:
    recorded = read(LOSSES)
    assert recorded["made_with"] == arithmetic(), "record on a processor and with a torch like those of the others"
    with tempfile.TemporaryDirectory() as name:
        run_all(Path(name))
        found = {recipe: losses_of(Path(name) / recipe) for recipe in RECIPES}
    write(LOSSES, recorded | {recipe: losses for recipe, losses in found.items() if recipe not in recorded})


if __name__ == "__main__":
    record_new()
