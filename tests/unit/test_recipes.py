"""Recipes: which networks and methods they run, what their help says, and that every hyper-parameter is a flag."""

import re
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from launch.imagenet import all_recipes, parse_config
from launch.recipes._shared.recipe import Distilled, Plan, Supervised
from pipeline.config import Files, RunConfig, Settings, method_flag
from pipeline.core.errors import ConfigError
from pipeline.engine.optim import learning_rate
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1, R50_R18
from pipeline.losses._shared.record import Loss
from pipeline.losses._shared.wrapping import WrapperLoss
from pipeline.methods._shared.registry import build_method, method_names

_FILES = Files(out=Path("run"))
_PAIRS = {"r34_r18": R34_R18, "r50_mbv1": R50_MBV1, "r50_r18": R50_R18}
_FIGURE = re.compile(r"\d\d\.\d\d")

RECIPES = all_recipes()
TAUGHT = [name for name in RECIPES if name.endswith(tuple(_PAIRS))]
DISTILLED = [name for name, recipe in RECIPES.items() if isinstance(recipe.plan, Distilled)]


def config_of(recipe: str) -> RunConfig:
    return RECIPES[recipe](_FILES)


def plan_of(recipe: str) -> Distilled:
    plan = RECIPES[recipe].plan
    assert isinstance(plan, Distilled)
    return plan


def test_every_method_has_a_recipe() -> None:
    methods = set(method_names()) - {"supervised"}
    assert {config_of(name).method for name in TAUGHT} == methods
    for name in sorted(methods - {"simkd"}):  # published for ResNet-50 teachers alone
        assert f"{name}_r34_r18" in TAUGHT


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_every_recipe_builds_its_method(recipe: str) -> None:
    config = config_of(recipe)
    needs = build_method(config.method, config.method_args).needs
    assert bool(needs.teacher) == (config.teacher is not None)
    if recipe in TAUGHT:
        assert next(pair for suffix, pair in _PAIRS.items() if recipe.endswith(suffix)) == plan_of(recipe).pair


@pytest.mark.parametrize("recipe", TAUGHT)
def test_help_says_what_how_at_which_cost_and_the_published_figure(recipe: str) -> None:
    told, plan = RECIPES[recipe].help("launch/imagenet.py"), plan_of(recipe)
    assert f"torchrun --nproc_per_node=8 launch/imagenet.py {recipe} --data DIR --out runs/{recipe}\n" in told
    student = {"resnet18": "ResNet-18", "mobilenet_v1": "MobileNetV1"}[plan.pair.student]
    epochs = config_of(recipe).optimisation.epochs
    assert re.search(rf"Cost: {epochs} epochs, \d\.\d times the arithmetic of {student} from labels\.", told)
    published = told.partition("Published: ")[2].partition("Cost: ")[0]
    texts = (plan.loss.published, *plan.loss.published_with.values())
    known = {figure for text in texts for figure in _FIGURE.findall(text.get(plan.pair, ""))}
    figures = _FIGURE.findall(published)
    assert set(figures) <= known, "the record has them"
    if not figures:
        assert published == "none. "
        assert plan.pair not in plan.loss.published or isinstance(plan.loss, WrapperLoss)


def test_help_of_small_runs_needs_no_eight_gpus() -> None:
    assert "\npython launch/imagenet.py smoke --out runs/smoke\n" in RECIPES["smoke"].help("launch/imagenet.py")
    assert "\npython launch/imagenet.py demo --data DIR --out runs/demo\n" in RECIPES["demo"].help("launch/imagenet.py")


def test_costs_are_those_of_networks_and_methods() -> None:
    told = {name: RECIPES[name].cost for name in ("kd_r34_r18", "kd_r50_mbv1", "vid_r34_r18", "simkd_r50_r18")}
    assert [re.findall(r"\d+\.\d", cost) for cost in told.values()] == [["1.7"], ["3.4"], ["1.8"], ["2.1"]]
    assert RECIPES["vanilla_r34"].cost == "90 epochs of ResNet-34"
    assert RECIPES["smoke"].cost == ""


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name.startswith("vanilla") or name in TAUGHT])
def test_the_learning_rate_is_a_tenth_for_256_images(recipe: str) -> None:
    """All these code bases scale it linearly."""
    optimisation = config_of(recipe).optimisation
    assert optimisation.lr == pytest.approx(0.1 * optimisation.batch / 256)
    assert (optimisation.weight_decay, optimisation.schedule, optimisation.gamma) == (1e-4, "step", 0.1)


def test_losses_of_a_whole_micro_batch_take_that_of_their_authors_gpus() -> None:
    """Eight times 32 images, on any number of ranks up to eight; other losses are cut as there are ranks."""
    for recipe in RECIPES:
        config = config_of(recipe)
        method = config.method_args.get("base", config.method)
        coupled = method in ("dist", "pkt", "semckd", "sp")
        assert config.optimisation.micro_batches is None, recipe
        assert config.optimisation.max_micro_batch == (32 if coupled else None), recipe
        assert not coupled or config.optimisation.batch == 256


@pytest.mark.parametrize("recipe", ["ofd_r34_r18", "ofd_r50_mbv1"])
def test_ofd_decays_when_its_script_does(recipe: str) -> None:
    optimisation = config_of(recipe).optimisation
    for epoch in range(1, optimisation.epochs + 1):  # as the script counts them
        assert learning_rate(optimisation, epoch - 1, 1) == pytest.approx(0.1 * 0.1 ** (epoch // 30))


@pytest.mark.parametrize("recipe", DISTILLED)
def test_every_hyper_parameter_is_a_flag_and_changes_nothing_else(recipe: str) -> None:
    changes = changes_of(RECIPES[recipe].plan.loss)
    words = [word for name, value in changes.items() for word in (method_flag(name), *_words(value))]
    changed, plain = parse_config([recipe, "--out", "run", *words]), config_of(recipe)
    assert replace(changed, method_args=plain.method_args) == plain
    arguments = {**changed.method_args, **changed.method_args.get("base_args", {})}
    expected = {name: list(value) if isinstance(value, tuple) else value for name, value in changes.items()}
    assert {name: arguments[name] for name in changes} == expected


def changes_of(loss: Loss) -> dict[str, Any]:
    """Another value for every hyper-parameter of a record and its base that is to be given."""
    base = loss.base if isinstance(loss, WrapperLoss) else None
    changes = {item.name: _another(loss, item) for item in fields(loss) if item.name != "base"}
    if base is not None:
        kept = {*base.only_alone, *(("temperature",) if loss.name == "ctkd" else ())}
        changes |= {item.name: _another(base, item) for item in fields(base) if item.name not in kept}
    return changes


def _another(loss: Loss, item: "Field[Any]") -> Any:
    """A value of the field's kind that is not the recipe's."""
    value, kind = getattr(loss, item.name), get_type_hints(type(loss))[item.name]
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != value)
    if isinstance(value, tuple) or item.name == "teacher_stages":
        return ("stage2", "stage3")
    if isinstance(value, str):
        return "stage3"
    return (value or 0) + (0.25 if isinstance(value, float) else 3)


def _words(value: Any) -> list[str]:
    return list(value) if isinstance(value, tuple) else [str(value)]


def test_a_learned_temperature_is_not_given() -> None:
    with pytest.raises(ConfigError, match=r"--temperature 2"):
        parse_config(["ctkd_r34_r18", "--out", "run", "--temperature", "2"])


def test_networks_are_flags() -> None:
    config = parse_config(["at_r34_r18", "--out", "run", "--student", "resnet50", "--teacher", "resnet101@random"])
    assert (config.student, config.teacher) == ("resnet50", "resnet101@random")
    assert config.method_args == config_of("at_r34_r18").method_args


def test_help_says_which_batch_keeps_eight_gpus_busy() -> None:
    assert "--batch 2048" in RECIPES["kd_r34_r18"].on_eight_gpus
    assert "a micro-batch of 32 images" in RECIPES["sp_r34_r18"].on_eight_gpus
    assert RECIPES["smoke"].on_eight_gpus == ""
    assert RECIPES["kd_r34_r18"].on_eight_gpus in RECIPES["kd_r34_r18"].help("launch/imagenet.py")


@pytest.mark.parametrize("plan", [Supervised("resnet18"), Distilled(R34_R18, RECIPES["kd_r34_r18"].plan.loss)])
def test_settings_may_be_left_out(plan: Plan) -> None:
    assert plan.config("mine", _FILES).optimisation == Settings().optimisation
