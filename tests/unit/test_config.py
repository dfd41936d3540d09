"""The configuration as JSON, its comparison, and values that no run can have."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.recipes.registry import all_recipes
from pipeline.core.config import FREE_FIELDS, Files, RunConfig, check_config, first_difference
from pipeline.core.errors import ConfigError


def config_of(recipe: str = "kd_r34_r18") -> RunConfig:
    return all_recipes()[recipe](Files(out=Path("runs/a"), data=Path("data")))


@pytest.mark.parametrize("recipe", list(all_recipes()))
def test_every_recipe_survives_json(recipe: str) -> None:
    config = config_of(recipe)
    check_config(config)
    assert config.recipe == recipe
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@given(
    lr=st.floats(1e-9, 1e3),
    milestones=st.lists(st.integers(0, 1000)).map(tuple),
    mean=st.none() | st.tuples(*[st.floats(0, 1)] * 3),
    trace=st.none() | st.just(Path("a b/c")),
)
def test_values_survive_json(
    lr: float, milestones: tuple[int, ...], mean: tuple[float, float, float] | None, trace: Path | None
) -> None:
    config = config_of()
    config = replace(
        config,
        files=replace(config.files, trace=trace),
        views=replace(config.views, teacher_mean=mean),
        optimisation=replace(config.optimisation, lr=lr, milestones=milestones),
    )
    again = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config
    assert first_difference(config, again) is None


def test_the_first_difference_has_a_name_and_both_values() -> None:
    config = config_of()
    other = replace(config, method_args={**config.method_args, "temperature": 2.0})
    assert first_difference(config, other) == ("method_args.temperature", 4.0, 2.0)
    other = replace(config, teacher=None)
    assert first_difference(config, other) == ("teacher", "resnet34@IMAGENET1K_V1", None)


def test_free_fields_exist_and_make_no_difference() -> None:
    encoded = config_of().to_json()
    for name in FREE_FIELDS:
        group, _, field = name.partition(".")
        assert field in encoded[group], f"{name} is no field"
    changed = json.loads(json.dumps(encoded))
    changed["files"]["out"], changed["running"]["threads"] = "elsewhere", 3
    assert first_difference(RunConfig.from_json(encoded), RunConfig.from_json(changed)) is None


def test_a_field_of_a_newer_version_is_refused() -> None:
    encoded = config_of().to_json()
    encoded["views"]["telepathy"] = 1
    with pytest.raises(ConfigError, match="telepathy"):
        RunConfig.from_json(encoded)


@pytest.mark.parametrize(
    ("group", "field", "value", "word"),
    [
        ("optimisation", "batch", 0, "--batch"),
        ("optimisation", "lr", -1.0, "--lr"),
        ("optimisation", "ema_decay", 1.0, "--ema-decay"),
        ("optimisation", "label_smoothing", 1.0, "--label-smoothing"),
        ("optimisation", "max_steps", 0, "--max-steps"),
        ("optimisation", "micro_batches", 0, "--micro-batches"),
        ("running", "keep", 0, "--keep"),
        ("running", "log_every", 0, "--log-every"),
        ("running", "checkpoint_every", 0, "--checkpoint-every"),
        ("views", "resolution", 0, "--resolution"),
        ("views", "num_views", 0, "--num-views"),
    ],
)
def test_impossible_values_are_refused_by_flag(group: str, field: str, value: float, word: str) -> None:
    config = config_of()
    config = replace(config, **{group: replace(getattr(config, group), **{field: value})})
    with pytest.raises(ConfigError, match=f"{word} .*{value}"):
        check_config(config)


def test_nesterov_needs_sgd() -> None:
    config = config_of()
    config = replace(config, optimisation=replace(config.optimisation, nesterov=True, optimizer="adam"))
    with pytest.raises(ConfigError, match="--nesterov"):
        check_config(config)
