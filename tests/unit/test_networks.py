"""What the flags for numerics do to the networks of a run: synchronised BatchNorm, deterministic kernels."""

import os

import numpy as np
import pytest
import torch
from method_cases import ALONE, CASES, MICRO_BATCH, SAMPLES, Case, batch_of, config_of, networks_of, one_thread
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.data.order import Order
from pipeline.devices.numerics import set_kernels
from pipeline.devices.world import World
from pipeline.engine.distiller import Distiller, StudentNumerics
from pipeline.engine.networks import synchronise_batch_norm
from pipeline.engine.step import build_train_step
from pipeline.losses.kd import KDLoss
from pipeline.methods.kd import KD
from pipeline.models.network import Network
from pipeline.models.outputs import Outputs
from pipeline.models.taps import TapPoint

__all__ = ["one_thread"]

CONNECTED = [case for case in CASES if case.method in ("fitnet", "srrl", "semckd", "reviewkd", "ofd", "simkd")]
GPU = World(0, 1, torch.device("cuda"), 1)  # converting does not touch the device


@pytest.mark.parametrize("case", CONNECTED, ids=str)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_every_batch_norm_is_synchronised_and_still_kept_count_of(case: Case, micro_batches: int) -> None:
    """In one process a synchronised layer is the plain one, so that a step and its statistics must be equal."""
    config, states = config_of(case, micro_batches=micro_batches), []
    for synchronised in (False, True):
        networks = networks_of(config)
        if synchronised:
            synchronise_batch_norm(networks.distiller, config, GPU)
            layers = [layer for layer in networks.distiller.modules() if isinstance(layer, _BatchNorm)]
            assert {type(layer) for layer in layers} == {nn.SyncBatchNorm}
            assert any(isinstance(layer, nn.SyncBatchNorm) for layer in networks.distiller.method.modules()) or (
                case.method == "simkd"  # its projector is the student's
            )
        step = build_train_step(config, networks, Order(np.arange(SAMPLES), 0, MICRO_BATCH, micro_batches), ALONE)
        step([batch_of(0, number, num_micro_batches=micro_batches) for number in range(micro_batches)])
        states.append(step.state()["module"])
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


class _NormLast(nn.Module):
    """A network whose last map is a BatchNorm's output, as DenseNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.BatchNorm2d(3), nn.Linear(3, 2)

    def tap_points(self) -> dict[str, TapPoint]:
        return {"stage1": TapPoint("norm"), "stage1.pre": TapPoint("norm", side="input")}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(images).mean(dim=(2, 3)))


def test_a_tap_on_a_batch_norm_outlives_its_synchronisation() -> None:
    student = Network(_NormLast(), taps=("stage1", "stage1.pre"))
    images = torch.randn(4, 3, 5, 5)
    expected: Outputs = student(images)
    distiller = Distiller(student, KD(KDLoss()), StudentNumerics(torch.device("cpu"), "off", 0.0), compiled=False)
    synchronise_batch_norm(distiller, config_of(Case("kd")), GPU)
    found: Outputs = student(images)
    assert {name: map_.tolist() for name, map_ in found.features.items()} == {
        name: map_.tolist() for name, map_ in expected.features.items()
    }


def test_deterministic_kernels_come_with_the_workspace_that_cublas_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        for before, after in (("", ":4096:8"), (":16:8", ":16:8")):
            monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", before)
            if not before:
                monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
            set_kernels(deterministic=True, precision="off")
            assert torch.are_deterministic_algorithms_enabled()
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == after
    finally:
        set_kernels(deterministic=False, precision="bf16")
