"""The configuration as JSON, its comparison, and values that no run can have."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.imagenet import all_recipes
from pipeline.config import (
    Files,
    RunConfig,
    Settings,
    check_config,
    first_difference,
    schedule_warnings,
)
from pipeline.core.errors import ConfigError


def config_of(recipe: str = "kd_r34_r18") -> RunConfig:
    return all_recipes()[recipe](Files(out=Path("runs/a"), data=Path("data")))


def changed(config: RunConfig, group: str, field: str, value: Any) -> RunConfig:
    return replace(config, **{group: replace(getattr(config, group), **{field: value})})


def number_fields() -> Iterator[tuple[str, str, type]]:
    """(group, field, int or float) of every field that holds a number or several."""
    for group, kind in get_type_hints(Settings).items():
        for field, type_ in get_type_hints(kind).items():
            inner = [part for outer in (type_, *get_args(type_)) for part in (outer, *get_args(outer))]
            number = next((part for part in inner if part in (int, float)), None)
            if number is not None:
                yield group, field, number


SEVERAL = {"mean", "std", "teacher_mean", "teacher_std", "betas", "milestones"}


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


@pytest.mark.parametrize("recipe", ["semckd_r34_r18", "ctkd_vid_r34_r18", "kd_r34_r18"])
def test_a_run_of_a_version_with_fewer_hyper_parameters_goes_on(recipe: str) -> None:
    now: RunConfig = all_recipes()[recipe](Files(out=Path("run")))
    new = ("teacher_stages", "mid_channels", "form")
    arguments = {name: value for name, value in now.method_args.items() if name not in new}
    if "base_args" in arguments:
        arguments["base_args"] = {name: value for name, value in arguments["base_args"].items() if name not in new}
    saved = replace(now, method_args=arguments)
    assert saved != now
    assert first_difference(saved, now) is None
    assert first_difference(now, saved) is None


FREE = {
    "files": "out data train_dir val_dir train_index val_index beton val_beton store stage trace",
    "teaching": "store_io check_rows max_divergence",
    "running": "threads prefetch checkpoint_every keep log_every dry_run on_bad_image eval_every",
    "numerics": "cuda_graphs",
    "optimisation": "max_steps max_micro_batch",  # what that decided, the number of micro-batches, is compared
}


def test_free_fields_and_no_others_make_no_difference() -> None:
    """A resumed run may change these: they say where files are, how fast and how often, never what comes out."""
    encoded = config_of().to_json()
    saved = RunConfig.from_json(encoded)
    for group, values in encoded.items():
        for name in values if isinstance(values, dict) and group != "method_args" else ():
            other = replace(saved, **{group: replace(getattr(saved, group), **{name: "other"})})
            told = first_difference(saved, other)
            assert (told is None) == (name in FREE.get(group, "").split()), name
            assert told is None or told[0] == f"{group}.{name}"


def test_a_change_of_free_fields_is_no_difference() -> None:
    encoded = config_of().to_json()
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
        ("views", "plan_seed", -1, "--plan-seed"),
        ("views", "teacher_std", (0.2, 0.0, 0.2), "--teacher-std"),
        ("views", "mean", (123.7, 116.3, 103.5), "--mean"),
        ("teaching", "max_divergence", -1.0, "--max-divergence"),
        ("optimisation", "clip_norm", -5.0, "--clip-norm"),
        ("optimisation", "weight_decay", -1.0, "--weight-decay"),
        ("optimisation", "gamma", -1.0, "--gamma"),
        ("optimisation", "gamma", 10.0, "--gamma"),
        ("optimisation", "warmup_epochs", -3.0, "--warmup-epochs"),
        ("optimisation", "momentum", -0.5, "--momentum"),
        ("optimisation", "momentum", 1.0, "--momentum"),
        ("optimisation", "betas", (1.5, 0.9), "--betas"),
        ("optimisation", "milestones", (-1, 30), "--milestones"),
        ("optimisation", "milestones", (60, 30), "--milestones must rise"),
        ("optimisation", "milestones", (30, 30), "--milestones must rise"),
        ("optimisation", "run_seed", 2**32, "--run-seed"),
        ("running", "synthetic_classes", 0, "--synthetic-classes"),
        ("running", "synthetic_samples", 0, "--synthetic-samples"),
    ],
)
def test_impossible_values_are_refused_by_flag(group: str, field: str, value: Any, word: str) -> None:
    given = " ".join(map(str, value)) if isinstance(value, tuple) else value
    with pytest.raises(ConfigError, match=f"^{word}.*, got {given}"):
        check_config(changed(config_of(), group, field, value))


@pytest.mark.parametrize(("group", "field", "kind"), list(number_fields()))
def test_every_number_of_a_run_is_finite_and_within_bounds(group: str, field: str, kind: type) -> None:
    """Walks the fields: a new number needs a range in its annotation, and gets a line here by itself."""
    config = config_of()
    before = getattr(getattr(config, group), field)
    length = len(before) if isinstance(before, tuple) else 3  # teacher_mean, teacher_std
    wrong = [-1] if kind is int else [-1.0, math.nan, math.inf]
    for value in wrong:
        given = (value,) * length if field in SEVERAL else value
        with pytest.raises(ConfigError, match=f"^--{field.replace('_', '-')} must be .*, got .*{value}$"):
            check_config(changed(config, group, field, given))


@pytest.mark.parametrize(
    ("recipe", "argument", "word"),
    [
        ("kd_r34_r18", "temperature", "--temperature"),
        ("nkd_r34_r18", "gamma", "--method-gamma"),
        ("crd_r34_r18", "momentum", "--method-momentum"),
    ],
)
def test_a_methods_number_is_finite(recipe: str, argument: str, word: str) -> None:
    config = config_of(recipe)
    with pytest.raises(ConfigError, match=f"^{word} must be finite, got nan$"):
        check_config(replace(config, method_args={**config.method_args, argument: math.nan}))
    wrapped = replace(config, method="lskd", method_args={"base": "kd", "base_args": {argument: math.inf}})
    with pytest.raises(ConfigError, match=f"^{word} must be finite, got inf$"):
        check_config(wrapped)


@pytest.mark.parametrize("recipe", list(all_recipes()))
def test_a_recipe_as_it_is_gives_no_warning_of_its_schedule(recipe: str) -> None:
    assert schedule_warnings(config_of(recipe).optimisation) == []


def test_a_rate_that_is_never_lowered_or_never_reached_is_told() -> None:
    short = replace(config_of().optimisation, epochs=20)
    (warning,) = schedule_warnings(short)
    assert re.search("never lowered: --epochs 20 .*--milestones 30 60 90.* below 20", warning)
    assert schedule_warnings(replace(short, epochs=31)) == []
    assert schedule_warnings(replace(short, schedule="cosine")) == []
    (warning,) = schedule_warnings(replace(short, schedule="constant", warmup_epochs=20.0))
    assert "--warmup-epochs 20 of --epochs 20" in warning


def test_nesterov_needs_sgd() -> None:
    config = changed(config_of(), "optimisation", "nesterov", True)
    with pytest.raises(ConfigError, match="--nesterov"):
        check_config(changed(config, "optimisation", "optimizer", "adam"))
