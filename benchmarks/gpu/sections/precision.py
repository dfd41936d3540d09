"""A teacher's logits in each precision, against float64: is fp32 float32, and what do the halves cost?

ResNet-34 with random weights, its BatchNorms calibrated on the images and its classifier scaled, so that activations
and logits have the size of a trained network's.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
import torchvision
from torch import nn
from torch.nn.functional import interpolate

from benchmarks._shared.imagenet import CLASSES
from benchmarks.gpu.findings import Outcome, Part, Setting, check, measured
from pipeline.devices.numerics import set_kernels
from pipeline.kernels import kl
from pipeline.models.network import Network
from pipeline.models.outputs import Outputs
from pipeline.models.spec import resolve_model
from pipeline.models.zoo import build_network
from pipeline.teachers.runner import TeacherRunner

SECTION = (6, "teachers' precisions against float64", 45)

_LOGIT_DEVIATION = 3.0
_FLOAT32 = (
    1e-3  # of the logits' deviation: float32 is within 1e-4 of it, TF32 has fp16's ten bits and is not within 1e-2
)


@dataclass(frozen=True)
class Divergence:
    """From float64: greatest difference of a logit, and mean KL in nats at temperatures 1 and 4."""

    most: float
    kl_1: float
    kl_4: float

    def describe(self) -> str:
        """All of it."""
        return f"greatest logit error {self.most:.1e}, mean KL {self.kl_1:.1e} at T = 1, {self.kl_4:.1e} at T = 4"


@dataclass(frozen=True)
class Problem:
    """Weights, images and the exact logits."""

    name: str
    weights: dict[str, torch.Tensor]
    images: torch.Tensor
    exact: torch.Tensor


def parts(setting: Setting) -> list[Part]:
    """fp32 as a check, beside a student in bf16, whose connectors may use TF32; the others measured."""
    set_kernels(deterministic=False, precision="bf16")
    problem: list[Problem] = []  # made by the first part, so that its failure is that part's

    def solve(precision: str) -> Outcome:
        if not problem:
            problem.append(make_problem(setting))
        return _compare(problem[0], precision, setting)

    return [Part(name, partial(solve, name)) for name in ("fp32", "fp16", "bf16", "tf32")]


def make_problem(setting: Setting) -> Problem:
    """With calibration and exact logits computed on the device, in float64."""
    name, side = setting.pick(("resnet34", 224), ("resnet34", 224), ("resnet18", 32))
    images = _images(setting.pick(256, 64, 8), side)
    start = build_network(resolve_model(f"{name}@random", role="teacher"), num_classes=CLASSES, seed=0)
    exact: nn.Module = getattr(torchvision.models, name)(num_classes=CLASSES)
    exact.load_state_dict(start.model.state_dict())
    exact.double().to(setting.device)
    for layer in exact.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0  # the statistics of the one batch that follows
    with torch.no_grad():
        exact.train()(images[:64].double().to(setting.device))
        exact.eval()
        deviation = _logits(exact, images, setting).std()
        for value in exact.get_submodule("fc").parameters():
            value.mul_(_LOGIT_DEVIATION / deviation.to(value.device))
    # rounded once, so that every precision has the very same weights
    weights = {key: value.float().cpu() for key, value in exact.state_dict().items() if value.is_floating_point()}
    exact.load_state_dict(weights, strict=False)
    return Problem(name, weights, images, _logits(exact, images, setting))


def _images(count: int, side: int) -> torch.Tensor:
    """Smooth noise with detail, of the deviation of normalised photographs."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 3, max(2, side // 16), max(2, side // 16), generator=generator)
    smooth = interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    return smooth + 0.1 * torch.randn(count, 3, side, side, generator=generator)


def _logits(network: nn.Module, images: torch.Tensor, setting: Setting) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([network(part.double().to(setting.device)).cpu() for part in images.split(64)])


def _compare(problem: Problem, precision: str, setting: Setting) -> Outcome:
    teacher = TeacherRunner(
        _network(problem),
        device=torch.device(setting.device),
        precision="fp32" if precision == "tf32" else precision,
    )
    forward = _in_tf32(teacher.network) if precision == "tf32" else teacher.forward
    images = problem.images.contiguous(memory_format=torch.channels_last)
    logits = [forward(part.to(setting.device)).logits.double().cpu() for part in images.split(64)]
    found = divergence_of(torch.cat(logits), problem.exact)
    figures = asdict(found)
    if precision != "fp32":
        return measured(found.describe(), **figures)
    bound = _FLOAT32 * float(problem.exact.std())
    text = f"{found.describe()}; float32 keeps the error below {bound:.1e}" if bound else "the device computes nothing"
    return check(found.most <= bound and bound > 0, text, **figures)


def _in_tf32(network: Network) -> Callable[[torch.Tensor], Outputs]:
    """As torch runs float32 convolutions where nobody forbids it; no teacher of ours does."""

    @torch.no_grad()
    def forward(images: torch.Tensor) -> Outputs:
        torch.backends.cudnn.allow_tf32 = True
        outputs: Outputs = network(images)
        return outputs

    return forward


def _network(problem: Problem) -> Network:
    network = build_network(resolve_model(f"{problem.name}@random", role="teacher"), num_classes=CLASSES, seed=0)
    network.model.load_state_dict(problem.weights, strict=False)
    return network


def divergence_of(logits_BC: torch.Tensor, exact_BC: torch.Tensor) -> Divergence:
    """Of float64 logits."""
    kl_1, kl_4 = (float(kl.reference(logits_BC, exact_BC, t)) / t**2 for t in (1.0, 4.0))
    return Divergence(float((logits_BC - exact_BC).abs().max()), kl_1, kl_4)
