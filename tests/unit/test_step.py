"""One step: accumulation, label smoothing, precision of the classifier, metrics that come late."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax

from launch.imagenet import all_recipes
from pipeline.config import Files, RunConfig
from pipeline.core.errors import RefluxError
from pipeline.data.loader import Batch
from pipeline.data.order import Order
from pipeline.data.plan import PlanRows
from pipeline.devices.world import World
from pipeline.engine.distiller import Distiller, StudentNumerics
from pipeline.engine.networks import Networks
from pipeline.engine.step import LateMetrics, TrainStep, build_train_step
from pipeline.kernels.kl import kl
from pipeline.losses.kd import KDLoss
from pipeline.methods.kd import KD
from pipeline.models.network import Network
from pipeline.models.outputs import Outputs
from pipeline.teachers.base import Teacher

CPU = torch.device("cpu")
WORLD = World(0, 1, CPU, 1)
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
SIDE, CLASSES, PER_STEP = 4, 5, 12


class FirstPixels(Teacher):
    """A teacher whose logits are the first numbers of the image."""

    def outputs(self, batch: Batch, images: torch.Tensor) -> Outputs:
        return self.blank(batch.images, images)

    def blank(self, pixels_BHWC: torch.Tensor, images: torch.Tensor) -> Outputs:
        return Outputs(logits=pixels_BHWC.flatten(1)[:, :CLASSES])


def network() -> Network:
    torch.manual_seed(1)
    return Network(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES)))


def step_of(micro_batches: int, *, smoothing: float = 0.0, clip: float | None = None) -> tuple[TrainStep, Distiller]:
    config: RunConfig = all_recipes()["smoke"](Files(out=Path("run")))
    optimisation = replace(config.optimisation, label_smoothing=smoothing, clip_norm=clip, schedule="constant")
    config = replace(config, optimisation=optimisation)
    config = replace(config, numerics=replace(config.numerics, amp="off"))
    distiller = Distiller(
        network(), KD(KDLoss(ce=0.5, kd=2.0, temperature=3.0)), StudentNumerics(CPU, "off", smoothing), compiled=False
    )
    order = Order(np.arange(100), 0, PER_STEP // micro_batches, micro_batches)
    networks = Networks(
        distiller=distiller,
        prepare=lambda images: images,
        teacher=FirstPixels(),
    )
    return build_train_step(config, networks, order, WORLD), distiller


def convolutional_step(optimizer: str, device: torch.device) -> TrainStep:
    """The step of a channels_last student whose first parameter is a kernel with another layout than contiguous."""
    torch.manual_seed(1)
    student = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)))
    distiller = Distiller(student, KD(KDLoss()), StudentNumerics(device, "off", 0.0), compiled=False)
    distiller = distiller.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    config: RunConfig = all_recipes()["smoke"](Files(out=Path("run")))
    optimisation = replace(config.optimisation, optimizer=optimizer, schedule="constant")
    return build_train_step(
        replace(config, optimisation=optimisation, numerics=replace(config.numerics, amp="off")),
        Networks(distiller=distiller, prepare=lambda images: images, teacher=FirstPixels()),
        Order(np.arange(100), 0, PER_STEP, 1),
        World(0, 1, device, 1),
    )


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(PER_STEP, 3, SIDE, SIDE, generator=generator)
    return images, torch.randint(CLASSES, (PER_STEP,), generator=generator)


def batches(parts: int, device: str = "cpu") -> list[Batch]:
    images, labels = (values.to(device) for values in data())
    size, ids = PER_STEP // parts, np.arange(PER_STEP)
    rows = PlanRows(ids, ids, np.zeros((PER_STEP, 4), np.int32), np.zeros(PER_STEP, bool))
    return [
        Batch(0, 0, n, rows, images[part], labels[part], torch.from_numpy(ids[part]), (), 0.0)
        for n, part in enumerate(slice(n * size, (n + 1) * size) for n in range(parts))
    ]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradient_is_that_of_the_mean_over_the_global_batch(smoothing: float) -> None:
    images, labels = data()
    reference = network()
    logits = reference(images).logits
    ce = cross_entropy(logits, labels, label_smoothing=smoothing)
    loss = 0.5 * ce + 2.0 * kl(logits, images.flatten(1)[:, :CLASSES], 3.0)
    loss.backward()
    for parts in (1, 3, 6):
        step, distiller = step_of(parts, smoothing=smoothing)
        terms = step(batches(parts))
        assert terms["loss"].item() == pytest.approx(loss.item(), rel=1e-6)
        assert terms["ce"].item() == pytest.approx(ce.item(), rel=1e-6)
        for ours, theirs in zip(distiller.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_label_smoothing_by_hand() -> None:
    images, labels = data()
    log_probabilities = log_softmax(network()(images).logits.double(), dim=1)
    target = torch.full_like(log_probabilities, 0.1 / CLASSES)
    target[torch.arange(PER_STEP), labels] += 0.9
    expected = -(target * log_probabilities).sum(dim=1).mean()
    step, _ = step_of(1, smoothing=0.1)
    assert step(batches(1))["ce"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_whole_gradient_is_clipped() -> None:
    step, distiller = step_of(3, clip=0.01)
    step(batches(3))
    norm = torch.stack([p.grad.norm() for p in distiller.parameters() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-4)


def test_state_and_load_give_the_same_next_step() -> None:
    first, ours = step_of(3)
    first(batches(3))
    state = copy.deepcopy(first.state())  # as a file would be
    second, theirs = step_of(3)
    second.load(state)
    first(batches(3))
    second(batches(3))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("device", DEVICES)
def test_momenta_come_back_in_their_parameters_layout(optimizer: str, device: str) -> None:
    first, second, third = (convolutional_step(optimizer, torch.device(device)) for _ in range(3))
    first(batches(1, device))
    state = copy.deepcopy(first.state())
    written = copy.deepcopy(state)
    for own in written["optimizer"]["state"].values():  # as earlier versions wrote it on CUDA
        own.update({name: value.contiguous() for name, value in own.items() if isinstance(value, torch.Tensor)})
    second.load(state)
    third.load(written)
    weight = third.optimizer.param_groups[0]["params"][0]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    momenta = [value for value in third.optimizer.state[weight].values() if value.shape == weight.shape]
    assert [value.stride() for value in momenta] == [weight.stride()] * (1 if optimizer == "sgd" else 2)
    for step in (first, second, third):
        step(batches(1, device))
    tolerance = 0.0 if device == "cpu" else 1e-5  # cuDNN may sum a gradient in another order each time
    for ours in (second, third):
        torch.testing.assert_close(
            ours.distiller.state_dict(), first.distiller.state_dict(), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_the_classifier_runs_in_float32_under_autocast(amp: str) -> None:
    torch.manual_seed(0)
    student = Network(nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)))
    images = torch.randn(4, 3, 8, 8)
    dtype = torch.bfloat16 if amp == "bf16" else torch.float16
    with torch.autocast("cpu", dtype=dtype):
        outputs = student(images)
        assert student.model[0](images).dtype == dtype
    assert outputs.logits.dtype == torch.float32
    expected = outputs.embedding @ student.head.weight.T + student.head.bias
    torch.testing.assert_close(outputs.logits, expected)


def test_metrics_come_one_step_late_and_in_order() -> None:
    late = LateMetrics()
    late.push(1, {"loss": torch.tensor(2.0)}, lr=0.1)
    assert late.pop(keep=1) == []
    late.push(2, {"loss": torch.tensor(1.0)}, lr=0.2)
    assert late.pop(keep=1) == [(1, {"loss": 2.0, "lr": 0.1})]
    assert late.pop(keep=0) == [(2, {"loss": 1.0, "lr": 0.2})]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_names_the_step(value: float) -> None:
    late = LateMetrics()
    late.push(7, {"loss": torch.tensor(value)}, lr=0.1)
    with pytest.raises(RefluxError, match=r"not finite after step 7.*loss"):
        late.pop(keep=0)
