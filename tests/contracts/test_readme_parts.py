"""README's recipe and method work as they stand, from files of their own, and nothing else is touched."""

import re
from collections.abc import Callable
from types import ModuleType

import pytest
from conftest import REPOSITORY
from method_cases import Case, one_thread
from method_contract import MethodContract

from launch import recipes
from launch.imagenet import all_recipes, parse_config
from pipeline import losses, methods
from pipeline.losses._shared.registry import loss_record
from pipeline.methods.__main__ import markdown

__all__ = ["one_thread"]

RECIPE, LOSS, METHOD, MAP_LOSS, MAP_METHOD = (
    block
    for page in ("README.md", "docs/parts.md")
    for block in re.findall(r"```python\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL)
)
PROMISES = [getattr(MethodContract(), name) for name in dir(MethodContract) if name.startswith("test_")]


@pytest.fixture
def parts(add_part: Callable[[ModuleType, str, str], None]) -> None:
    """The examples as parts, found beside the others."""
    add_part(recipes, "mine", RECIPE)
    for name, loss, method in (("cosine", LOSS, METHOD), ("hint", MAP_LOSS, MAP_METHOD)):
        add_part(losses, name, loss)
        add_part(methods, name, method)


def test_the_recipe_of_the_example_is_a_command(parts: None, capsys: pytest.CaptureFixture[str]) -> None:
    config = parse_config(["my_dkd", "--out", "run", "--alpha", "3"])
    assert (config.recipe, config.student, config.method) == ("my_dkd", "mobilenet_v1", "dkd")
    assert (config.method_args["alpha"], config.method_args["beta"]) == (3.0, 2.0)
    with pytest.raises(SystemExit):
        parse_config(["--help"])
    assert "my_dkd" in capsys.readouterr().out
    assert all_recipes()["my_dkd"].cost == "100 epochs, 3.4 times the arithmetic of MobileNetV1 from labels"


def test_the_method_of_the_example_is_listed_with_what_it_needs(parts: None) -> None:
    assert loss_record("cosine", {"weight": 2.0}).stores == ("embedding",)
    assert "| `cosine` | embedding, logits | embedding | - | - |" in markdown(["cosine"])


@pytest.mark.parametrize("method", ["cosine", "hint"])
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_the_methods_of_the_examples_keep_every_promise_of_methods(
    promise: Callable[[Case], None], method: str, parts: None
) -> None:
    promise(Case(method, {"weight": 2.0}))


def test_it_can_be_the_base_of_others(parts: None) -> None:
    around = loss_record("ctkd", {"base": "cosine"})
    assert around.weights.kd == 1.0
    assert around.stores == ("embedding",)
