"""Methods do not depend on the number of ranks: gradients, trained parts and banks after steps on one and on two."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jobs import run_on_ranks
from method_cases import CASES, MICRO_BATCH, SAMPLES, Case, batch_of, config_of, networks_of, train_step_of

from pipeline.data.order import Order
from pipeline.devices.world import World
from pipeline.engine.step import TrainStep, build_train_step

NUM_STEPS, MICRO_BATCHES = 2, 3  # an uneven deal: of two ranks, one runs two micro-batches and one runs one
SKIPPED = ("kd-cross_entropy", "ctkd-linear", "ctkd-dkd", "lskd-dkd")  # nothing that other cases do not have
TESTED = [case for case in CASES if str(case) not in SKIPPED]


def train(world: World) -> dict[str, Any]:
    """Two steps of every method; returns what they left behind, as numbers by method."""
    torch.set_num_threads(1)
    return {str(case): _train(case, world) for case in TESTED}


def train_with_a_tail(world: World) -> dict[str, Any]:
    """Two steps of SimKD with a student that has layers between its last map and its classifier."""
    torch.set_num_threads(1)
    config = replace(config_of(Case("simkd"), micro_batches=MICRO_BATCHES), student="shufflenet_v2_x0_5")
    order = Order(np.arange(SAMPLES), 0, MICRO_BATCH, MICRO_BATCHES)
    step = build_train_step(config, networks_of(config, world), order, world)
    return _steps(step, order, world)


def _train(case: Any, world: World) -> dict[str, Any]:
    step, order = train_step_of(case, world, micro_batches=MICRO_BATCHES)
    return _steps(step, order, world)


def _steps(step: TrainStep, order: Order, world: World) -> dict[str, Any]:
    step.settle(order.micro_batch, 64)
    own = order.deal(world.rank, world.size)
    losses = []
    for number in range(NUM_STEPS):
        batches = [batch_of(number, index, num_micro_batches=MICRO_BATCHES) for index in own]
        losses.append(step(batches)["loss"].item())
    gradients = {n: _digest(p.grad) for n, p in step.distiller.named_parameters() if p.grad is not None}
    with step.statistics.averaged():
        state = {name: _digest(value) for name, value in step.distiller.state_dict().items()}
    return {"losses": losses, "gradients": gradients, "state": state}


def _digest(value: torch.Tensor) -> list[float]:
    """Enough of a tensor to notice a difference: its sum and size, and a few of its numbers."""
    flat = value.detach().double().flatten()
    chosen = flat[:: max(1, len(flat) // 8)][:8]
    return [flat.sum().item(), flat.norm().item(), *chosen.tolist()]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    return {size: run_on_ranks(train, size=size, folder=folder) for size in (1, 2)}


@pytest.mark.parametrize("name", [str(case) for case in TESTED])
def test_two_ranks_give_what_one_gives(results: dict[int, list[dict[str, Any]]], name: str) -> None:
    alone, first, second = results[1][0][name], results[2][0][name], results[2][1][name]
    assert first["gradients"] == second["gradients"], "every rank has the same gradient of every trainable part"
    assert first["state"] == second["state"]
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    for kind, rtol in (("gradients", 2e-3), ("state", 1e-3)):
        for part, expected in alone[kind].items():
            scale = max(map(abs, expected[1:]), default=0.0)
            assert first[kind][part] == pytest.approx(expected, rel=rtol, abs=rtol * scale + 1e-6), (kind, part)


def test_a_simkd_student_with_a_tail_trains_on_two_ranks(tmp_path: Path) -> None:
    first, second = run_on_ranks(train_with_a_tail, size=2, folder=tmp_path)
    assert first == second
    assert first["gradients"]
    assert not any("conv5" in name for name in first["state"])
