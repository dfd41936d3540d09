"""What is said before the first step."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from launch.imagenet import all_recipes
from pipeline.config import Files
from pipeline.core.command import Lines
from pipeline.data.order import Order
from pipeline.engine.notes import say_cautions

PER_EPOCH = 10
ORDER = Order(np.arange(8 * PER_EPOCH), 0, 8, 1)


def said(capsys: pytest.CaptureFixture[str], *, num_views: int | None, total_steps: int) -> str:
    config = all_recipes()["smoke"](Files(out=Path("run")))
    config = replace(config, views=replace(config.views, num_views=num_views))
    say_cautions(Lines(enabled=True), config, ORDER, total_steps)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("num_views", "total_steps", "expected"),
    [
        (2, 120 * PER_EPOCH, "warning: 120 epochs see 2 view(s) 60.0 times each; students overfit"),
        (2, 5 * PER_EPOCH, "5 epochs see 2 view(s) 2.5 times each\n"),
        (2, 25, "2.5 epochs see 2 view(s) 1.2 times each\n"),
        (2, 2, ""),
        (2, 2 * PER_EPOCH, ""),
        (None, 120 * PER_EPOCH, ""),
    ],
)
def test_views_are_counted_over_the_epochs_that_will_run(
    capsys: pytest.CaptureFixture[str], num_views: int | None, total_steps: int, expected: str
) -> None:
    text = said(capsys, num_views=num_views, total_steps=total_steps)
    assert text.startswith(expected)
    assert bool(text) == bool(expected)


@pytest.mark.parametrize(("greatest", "begin"), [(None, ""), (8, ""), (32, "micro-batches of 8: up to 32 are meant")])
def test_micro_batches_smaller_than_a_recipe_means_are_told(
    capsys: pytest.CaptureFixture[str], greatest: int | None, begin: str
) -> None:
    config = all_recipes()["smoke"](Files(out=Path("run")))
    config = replace(config, optimisation=replace(config.optimisation, max_micro_batch=greatest))
    say_cautions(Lines(enabled=True), config, ORDER, 2)
    text = capsys.readouterr().out
    assert text.startswith(begin)
    assert bool(text) == bool(begin)


def test_a_rate_that_is_never_lowered_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    config = all_recipes()["kd_r34_r18"](Files(out=Path("run")))
    say_cautions(Lines(enabled=True), config, ORDER, PER_EPOCH)
    assert capsys.readouterr().out == ""
    short = replace(config, optimisation=replace(config.optimisation, epochs=2))
    say_cautions(Lines(enabled=True), short, ORDER, PER_EPOCH)
    assert capsys.readouterr().out.startswith("warning: the learning rate is never lowered: --epochs 2")
