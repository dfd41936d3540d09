"""OFD, a comprehensive overhaul of feature distillation: margin ReLU."""

import math

import torch
from torch import Tensor, nn

from pipeline.core.errors import ConfigError
from pipeline.losses.ofd import OFDLoss
from pipeline.methods._shared.connectors import convolution, seeded, shapes_of
from pipeline.methods._shared.method import Method, MethodInput, Setting
from pipeline.methods._shared.pooling import pool_larger
from pipeline.methods._shared.precision import as_computed, in_float32

_RARE = 1e-3


class OFD(Method[OFDLoss]):
    """Squared distance between connected student maps and the teacher's, before the ReLU, where it matters.

    The teacher's values are cut from below at each channel's margin, the mean of its negative values; elements where
    the teacher is negative and the student lower still do not count. Summed over channels and positions, so the value
    grows with the resolution; averaged over the batch; stage i of n counts 1 / 2^(n - i - 1).
    """

    def build(self, setting: Setting) -> None:
        """Make one connector for each stage, and the margins from the teacher's BatchNorm."""
        student = shapes_of(self.loss.taps, setting.student_maps, whose="student")
        teacher = shapes_of(self.loss.taps, setting.teacher_maps, whose="teacher")
        missing = [tap for tap in self.loss.taps if tap not in setting.teacher_norms]
        if missing:
            raise ConfigError(
                f"OFD's margins come from the teacher's BatchNorm before each ReLU: none is known for {missing}.\n"
                "Choose a teacher with BatchNorm before its last ReLUs (ResNet, RegNet, VGG with BN, MobileNetV1)."
            )
        with seeded(setting.seed, "ofd"):
            self.connectors = nn.ModuleList(_connector(s[0], t[0]) for s, t in zip(student, teacher, strict=True))
        for number, tap in enumerate(self.loss.taps):
            self.register_buffer(f"margin{number}", margins(*setting.teacher_norms[tap]))

    def forward(self, batch: MethodInput) -> Tensor:
        """The weighted sum over stages, over B."""
        terms = []
        for number, (tap, connector) in enumerate(zip(self.loss.taps, self.connectors, strict=True)):
            source = batch.student.features[tap]
            with as_computed(source):
                connected = connector(source)
            pair = pool_larger(in_float32(connected), in_float32(batch.taught.features[tap]))
            terms.append(
                partial_distance(*pair, self.get_buffer(f"margin{number}")) / 2 ** (len(self.loss.taps) - number - 1)
            )
        return torch.stack(terms).sum() / len(batch.labels)


def margins(scale: Tensor, shift: Tensor) -> Tensor:
    """(C,) float32: E[x | x < 0] of x ~ N(shift, |scale|), as BatchNorm's outputs are; -3 |scale| where x < 0 is rare.

    Computed in float64. A scale of 0 gives the limit, the shift itself or 0, where the authors' code divides by it.
    """
    deviation, mean = scale.detach().double().abs(), shift.detach().double()
    ratio = mean / deviation.clamp_min(torch.finfo(torch.float64).tiny)
    below = torch.special.ndtr(-ratio)
    density = torch.exp(-0.5 * ratio.square()) / math.sqrt(2 * math.pi)
    expected = mean - deviation * density / below.clamp_min(_RARE)
    return torch.where(below > _RARE, expected, -3 * deviation).float()


def partial_distance(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """Sum of squared differences from the teacher cut at `margin` (C,), where that is positive or the student above."""
    target = torch.maximum(teacher, margin[:, None, None])
    counts = (student > target) | (target > 0)
    return ((student - target).square() * counts).sum()


def _connector(channels: int, width: int) -> nn.Sequential:
    layer = convolution(channels, width)
    nn.init.normal_(layer.weight, std=math.sqrt(2 / width))
    return nn.Sequential(layer, nn.BatchNorm2d(width))
