"""How many operations the host launches for one step: no more than was agreed, and no change unseen.

At 32 images a GPU an H100 is done with a step before the host has launched the next one: launches are the step's time.
"""

import pytest

from null_device.device import Counts
from null_device.golden import COMMAND, RECIPES, TOLERANCE, differences, measure, read_table, torch_version
from null_device.workers import Worker

_LIMITS = {
    "vanilla_r18": 235,
    "kd_r34_r18": 360,
    "crd_r34_r18": 540,
    "reviewkd_r34_r18": 760,
    "semckd_r34_r18": 1100,
}
_KD_WITH_GRAPH = 240


@pytest.fixture(scope="module")
def measured(worker: Worker) -> dict[str, Counts]:
    """By recipe; each of them is measured once."""
    return {recipe: measure(worker, recipe) for recipe in _LIMITS}


@pytest.mark.parametrize("recipe", _LIMITS)
def test_a_step_stays_below_its_limit(recipe: str, measured: dict[str, Counts]) -> None:
    assert measured[recipe]["operations"] <= _LIMITS[recipe], measured[recipe]


def test_a_teacher_in_a_graph_is_one_launch(worker: Worker) -> None:
    seen = measure(worker, "kd_r34_r18", "--cuda-graphs", "teacher")
    assert seen["operations"] <= _KD_WITH_GRAPH, seen
    assert seen["graph_launches"] == 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_operations_are_those_of_the_golden_table(recipe: str, measured: dict[str, Counts]) -> None:
    table = read_table()
    if torch_version() not in table:
        pytest.skip(f"golden.json has no torch {torch_version()}, only {', '.join(table)}. Add it: {COMMAND}")
    expected, seen = table[torch_version()][recipe], measured[recipe]
    assert seen["operations"] == pytest.approx(expected["operations"], rel=TOLERANCE), (
        f"{differences(expected, seen)}\nIf this is meant, renew the table and say why: {COMMAND}"
    )
