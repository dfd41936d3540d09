"""From "auto" to what runs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from launch.imagenet import all_recipes
from pipeline.config import Files, RunConfig, check_config, first_difference
from pipeline.core.errors import ConfigError
from pipeline.data.backend import Source
from pipeline.data.backends.synthetic import SyntheticBackend, synthetic_index
from pipeline.data.datasets import Datasets
from pipeline.devices.world import World
from pipeline.engine.resolve import resolve_names, resolve_values

SOURCE = Source(synthetic_index(1024, 2))
DATA = Datasets(SOURCE, SOURCE, SyntheticBackend, SyntheticBackend)


def resolved(config: RunConfig, *, size: int, saved: RunConfig | None = None, device: str = "cpu") -> RunConfig:
    return resolve_values(config, resolve_names(config), DATA, World(0, size, torch.device(device), 1), saved).config


def config_of(**optimisation: object) -> RunConfig:
    config = all_recipes()["smoke"](Files(out=Path("run")))
    return replace(config, optimisation=replace(config.optimisation, batch=24, **optimisation))  # type: ignore[arg-type]


def test_one_micro_batch_a_rank_at_the_first_start_and_as_many_ever_after() -> None:
    first = resolved(config_of(), size=2)
    assert first.optimisation.micro_batches == 2
    assert resolved(config_of(), size=1, saved=first) == first
    assert resolved(config_of(micro_batches=6), size=1).optimisation.micro_batches == 6


@pytest.mark.parametrize(
    ("batch", "size", "num"),
    [
        (256, 1, 8),
        (256, 3, 8),
        (256, 8, 8),
        (256, 16, 16),
        (512, 8, 16),
        (250, 8, 10),
        (24, 1, 1),
        (8, 2, 2),
        (96, 2, 3),
    ],
)
def test_micro_batches_of_a_greatest_size_are_as_few_as_can_be(batch: int, size: int, num: int) -> None:
    config = config_of(max_micro_batch=32)
    config = replace(config, optimisation=replace(config.optimisation, batch=batch))
    first = resolved(config, size=size)
    assert first.optimisation.micro_batches == num
    assert resolved(config, size=1, saved=first) == first
    changed = replace(config, optimisation=replace(config.optimisation, max_micro_batch=None))
    assert first_difference(first, resolved(changed, size=1, saved=first)) is None, "the number counts"
    given = replace(config, optimisation=replace(config.optimisation, micro_batches=batch))
    assert resolved(given, size=size).optimisation.micro_batches == batch


def test_precisions_follow_the_device() -> None:
    cpu, cuda = resolved(config_of(), size=1), resolved(config_of(), size=1, device="cuda")
    assert (cpu.numerics.amp, cpu.numerics.teacher_precision) == ("off", "fp32")
    assert (cuda.numerics.amp, cuda.numerics.teacher_precision) == ("bf16", "fp16")
    assert (cpu.running.backend, cpu.running.device) == ("synthetic", "cpu")
    assert cpu.views.val_resolution == cpu.views.resolution


def test_resolving_twice_changes_nothing() -> None:
    once = resolved(config_of(), size=3)
    assert resolved(once, size=1) == once


def test_a_batch_that_cannot_be_divided_names_the_cause_and_what_would_do() -> None:
    with pytest.raises(ConfigError, match=r"--batch 24 .* the number of ranks \(5\).\nUse --batch 20 or 25"):
        resolved(config_of(), size=5)
    with pytest.raises(ConfigError, match=r"--batch 24 .* --micro-batches \(7\)"):
        check_config(config_of(micro_batches=7))
