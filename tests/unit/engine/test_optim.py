"""Learning rates and weight decay, against hand computations."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from pipeline.config import Optimisation
from pipeline.engine.optim import build_optimizer, learning_rate, set_learning_rate

CPU = torch.device("cpu")
PER_EPOCH = 7


def rate(config: Optimisation, epoch: int, step: int = 0) -> float:
    return learning_rate(config, epoch * PER_EPOCH + step, PER_EPOCH)


def test_a_milestone_is_the_first_epoch_at_the_lower_rate() -> None:
    """Code that counts epochs from 1 writes "epoch > 150": its epoch 151, which is epoch 150 from 0."""
    config = Optimisation(epochs=240, lr=0.05, schedule="step", milestones=(150, 180, 210), gamma=0.1)
    assert rate(config, 149, PER_EPOCH - 1) == 0.05
    assert rate(config, 150) == pytest.approx(0.005)
    assert rate(config, 180) == pytest.approx(0.0005)
    assert rate(config, 239, PER_EPOCH - 1) == pytest.approx(0.00005)


def test_cosine_falls_from_lr_to_nearly_zero() -> None:
    config = Optimisation(epochs=10, lr=0.2, schedule="cosine")
    assert rate(config, 0) == 0.2
    assert rate(config, 5) == pytest.approx(0.1)
    assert rate(config, 9, PER_EPOCH - 1) == pytest.approx(0.1 * (1 + math.cos(math.pi * 69 / 70)))
    assert rate(config, 10) == pytest.approx(0.0)
    assert rate(config, 12) == pytest.approx(0.0), "beyond the end it stays there"


def test_warm_up_rises_linearly_to_the_schedule() -> None:
    config = Optimisation(epochs=10, lr=1.0, schedule="constant", warmup_epochs=2)
    assert [rate(config, 0, step) for step in range(3)] == pytest.approx([1 / 14, 2 / 14, 3 / 14])
    assert rate(config, 1, 6) == rate(config, 2) == 1.0


def test_cutting_a_run_short_leaves_its_schedule() -> None:
    config = Optimisation(epochs=10, lr=0.2, schedule="cosine")
    assert rate(replace(config, max_steps=3), 0, 2) == rate(config, 0, 2)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))


@pytest.mark.parametrize("decay", ["all", "weights"])
def test_decay_reaches_the_parameters_it_names(decay: str) -> None:
    """One SGD step without gradient: w - lr * wd * w where there is decay, w elsewhere."""
    module = small()
    config = Optimisation(lr=0.1, weight_decay=0.5, decay=decay, momentum=0.9)  # type: ignore[arg-type]
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimizer = build_optimizer(module, config, CPU)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    set_learning_rate(optimizer, 0.2)
    optimizer.step()
    for name, value in module.named_parameters():
        kept = 1 - 0.2 * 0.5 if decay == "all" or name == "0.weight" else 1.0
        torch.testing.assert_close(value.detach(), before[name] * kept)


def test_one_nesterov_step_by_hand() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 2.0)
    config = Optimisation(lr=0.1, weight_decay=0.01, momentum=0.9, nesterov=True)
    optimizer = build_optimizer(module, config, CPU)
    module.weight.grad = torch.full_like(module.weight, 3.0)
    optimizer.step()
    gradient = 3.0 + 0.01 * 2.0
    assert module.weight.item() == pytest.approx(2.0 - 0.1 * (gradient + 0.9 * gradient))


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_adam_and_adamw_take_the_betas(name: str, kind: type) -> None:
    config = Optimisation(optimizer=name, betas=(0.8, 0.95))  # type: ignore[arg-type]
    optimizer = build_optimizer(small(), config, CPU)
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.95)
