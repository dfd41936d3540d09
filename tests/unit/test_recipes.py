"""Recipes against the methods that they run: names, defaults, presets, published figures, flags.

Recipes import no torch, so what they say of a method is written twice; here both are held against each other.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest

from launch.imagenet import parse_config
from launch.recipes import code_bases
from launch.recipes.losses import CTKDLoss, KLLoss, Loss
from launch.recipes.registry import all_recipes, on_eight_gpus
from pipeline.config import Files, RunConfig, Settings
from pipeline.core.errors import ConfigError
from pipeline.engine.optim import learning_rate
from pipeline.methods.base import R34_R18, R50_MV1, R50_R18
from pipeline.methods.registry import build_method, method_module, method_names

_FILES = Files(out=Path("run"))
_PAIRS = {
    "r34_r18": (R34_R18, code_bases.R34_R18),
    "r50_mbv1": (R50_MV1, code_bases.R50_MBV1),
    "r50_r18": (R50_R18, code_bases.R50_R18),
}
_FIGURE = re.compile(r"\d\d\.\d\d")


def loss_types(kind: type[Loss] = Loss) -> Iterator[type[Loss]]:
    """Every loss that belongs to a method."""
    if hasattr(kind, "method"):
        yield kind
    for below in kind.__subclasses__():
        yield from loss_types(below)


TAUGHT = [name for name in all_recipes() if name.endswith(tuple(_PAIRS))]
LOSSES = list(loss_types())  # after the recipes, which import them


def config_of(recipe: str) -> RunConfig:
    return all_recipes()[recipe](_FILES)


def pair_of(recipe: str) -> tuple[str, code_bases.Pair]:
    return next(pair for suffix, pair in _PAIRS.items() if recipe.endswith(suffix))


def own_defaults(method: str) -> dict[str, Any]:
    """A constructor's defaults, without what a wrapper says of its base."""
    parameters = inspect.signature(method_module(method).METHOD).parameters
    return {name: p.default for name, p in parameters.items() if name not in ("base", "base_args")}


def as_json(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()}


@pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: kind.__name__)
def test_flags_have_the_names_and_defaults_of_the_constructor(kind: type[Loss]) -> None:
    defaults = own_defaults(kind.method)
    own = {field.name: field.default for field in fields(kind)}
    if kind is not KLLoss:
        assert sorted(own) == sorted(defaults), f"{kind.__name__} and {kind.method} have other hyper-parameters"
    assert own == {name: defaults[name] for name in own}


@pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: kind.__name__)
def test_every_flag_is_described(kind: type[Loss]) -> None:
    told = "".join(parent.__doc__ or "" for parent in kind.__mro__)
    assert [field.name for field in fields(kind) if f"    {field.name}: " not in told] == []


def test_every_method_has_a_loss_and_a_recipe() -> None:
    methods = set(method_names()) - {"supervised"}
    assert {kind.method for kind in LOSSES} == methods
    assert {config_of(name).method for name in TAUGHT} == methods
    for name in sorted(methods - {"simkd"}):  # published for ResNet-50 teachers alone
        assert f"{name}_r34_r18" in TAUGHT


@pytest.mark.parametrize("recipe", list(all_recipes()))
def test_every_recipe_builds_its_method(recipe: str) -> None:
    config = config_of(recipe)
    needs = build_method(config.method, config.method_args).needs
    assert bool(needs.teacher) == (config.teacher is not None)
    if recipe in TAUGHT:
        assert (config.student, config.teacher) == pair_of(recipe)[1]


@pytest.mark.parametrize("recipe", TAUGHT)
def test_hyper_parameters_are_published_ones(recipe: str) -> None:
    """The constructor's defaults, or one of the method's presets over them; a base as its wrapper's authors take it."""
    given = dict(config_of(recipe).method_args)
    method, own = config_of(recipe).method, own_defaults(config_of(recipe).method)
    presets = getattr(method_module(method), "PRESETS", {})
    if "base" not in given:
        assert given in [as_json({**own, **preset}) for preset in ({}, *presets.values())]
        return
    base, base_args = given.pop("base"), dict(given.pop("base_args"))
    assert {**given, "mode": None} == {**own, "mode": None}
    if method == "lskd":
        of_authors = next(preset["base_args"] for preset in presets.values() if preset["base"] == base)
    else:
        of_authors = method_module(base).PRESETS["ctkd"]
        del base_args["temperature"]  # learned
    wanted = as_json({**own_defaults(base), **of_authors})
    assert base_args == {name: wanted[name] for name in base_args}


@pytest.mark.parametrize("recipe", TAUGHT)
def test_the_docstring_says_what_how_and_the_published_figure(recipe: str) -> None:
    told = inspect.getdoc(all_recipes()[recipe]) or ""
    assert f"launch/imagenet.py {recipe} --data DIR --out runs/{recipe}" in told
    assert re.search(r"Cost: \d+ epochs, \d\.\d times", told)
    epochs = config_of(recipe).optimisation.epochs
    assert f"Cost: {epochs} epochs" in told
    published = told.partition("Published: ")[2].partition("Cost: ")[0]
    known = method_module(config_of(recipe).method).INFO.published.get(pair_of(recipe)[0], "")
    figures = _FIGURE.findall(published)
    assert set(figures) <= set(_FIGURE.findall(known)), f"INFO says: {known}"
    if not figures:
        assert published.startswith("none")
        assert not known or "base" in config_of(recipe).method_args, f"INFO says: {known}"


@pytest.mark.parametrize("recipe", [name for name in all_recipes() if name.startswith("vanilla") or name in TAUGHT])
def test_the_learning_rate_is_a_tenth_for_256_images(recipe: str) -> None:
    """All these code bases scale it linearly."""
    optimisation = config_of(recipe).optimisation
    assert optimisation.lr == pytest.approx(0.1 * optimisation.batch / 256)
    assert (optimisation.weight_decay, optimisation.schedule, optimisation.gamma) == (1e-4, "step", 0.1)


def test_losses_of_a_whole_micro_batch_take_that_of_their_authors_gpus() -> None:
    """Eight times 32 images, on any number of ranks up to eight; other losses are cut as there are ranks."""
    for recipe in all_recipes():
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


@pytest.mark.parametrize("recipe", [name for name in all_recipes() if config_of(name).method != "supervised"])
def test_every_hyper_parameter_is_a_flag_and_changes_nothing_else(recipe: str) -> None:
    parts = [p.default for p in inspect.signature(all_recipes()[recipe]).parameters.values()]
    losses = [part for part in parts if isinstance(part, Loss)]
    learned = any(isinstance(loss, CTKDLoss) for loss in losses)
    changes = {
        field.name: _another(loss, field)
        for loss in losses
        for field in fields(loss)
        if not (learned and field.name == "temperature")
    }
    words = [word for name, value in changes.items() for word in (_flag(name), *_words(value))]
    changed, plain = parse_config([recipe, "--out", "run", *words]), config_of(recipe)
    assert replace(changed, method_args=plain.method_args) == plain
    arguments = {**changed.method_args, **changed.method_args.get("base_args", {})}
    assert {name: arguments[name] for name in changes} == as_json(changes)


def _flag(name: str) -> str:
    groups = [Files, *(type(getattr(Settings(), field.name)) for field in fields(Settings))]
    taken = {field.name for group in groups for field in fields(group)}
    return f"--{'method-' if name in taken else ''}{name}".replace("_", "-")


def _another(loss: Loss, field: "Field[Any]") -> Any:
    """A value of the field's kind that is not the recipe's."""
    value, kind = getattr(loss, field.name), get_type_hints(type(loss), include_extras=True)[field.name]
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != value)
    if isinstance(value, tuple) or tuple in map(get_origin, get_args(kind)):
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
    recipes = all_recipes()
    assert "--batch 2048" in on_eight_gpus(recipes["kd_r34_r18"])
    assert "a micro-batch of 32 images" in on_eight_gpus(recipes["sp_r34_r18"])
    assert on_eight_gpus(recipes["smoke"]) == ""
