"""Variational information distillation (Ahn et al. 2019, arXiv:1904.05835)."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, softplus

from pipeline.core.ranges import ABOVE_0
from pipeline.methods.base import Method, MethodInfo, MethodInput, Needs, Setting, Weights
from pipeline.methods.parts import (
    STAGES,
    as_computed,
    check_taps,
    convolution,
    in_float32,
    pool_larger,
    seeded,
    shapes_of,
)

INFO = MethodInfo(paper="Ahn et al. 2019, arXiv:1904.05835")

PRESETS: dict[str, dict[str, Any]] = {
    "repdistiller": {"ce": 1.0, "kd": 0.0, "weight": 1.0},
    "simkd": {"ce": 1.0, "kd": 1.0, "temperature": 4.0, "weight": 1.0},
    "ctkd": {"ce": 1.0, "kd": 1.0, "temperature": 4.0, "weight": 1.0},
}

_INITIAL_VARIANCE = 5.0
_EPS = 1e-5


class VID(Method):
    """Negative Gaussian log-likelihood of the teacher's map given the student's, without its constant; sum over stages.

    The mean is a regression of the student's map, the variance is one number a channel; both are trained.

    Args:
        ce: weight of the cross-entropy.
        kd: weight of the temperature-scaled divergence; SimKD and CTKD use 1.
        temperature: T of that divergence.
        weight: of this term.
        stages: the taps compared.
        mid_channels: channels inside each regression; None takes the teacher's map's, as all public training code does.
    """

    def __init__(
        self,
        *,
        ce: float = 1.0,
        kd: float = 0.0,
        temperature: float = 4.0,
        weight: float = 1.0,
        stages: tuple[str, ...] = STAGES,
        mid_channels: int | None = None,
    ) -> None:
        super().__init__()
        check_taps("--stages", stages)
        if mid_channels is not None:
            ABOVE_0.check("--mid-channels", mid_channels)
        self.weights = Weights(ce=ce, kd=kd, temperature=temperature, method=weight)
        self._stages, self._mid_channels = tuple(stages), mid_channels

    def build(self, setting: Setting) -> None:
        """Make one regression for each stage."""
        student = shapes_of(self._stages, setting.student_maps, whose="student")
        teacher = shapes_of(self._stages, setting.teacher_maps, whose="teacher")
        with seeded(setting.seed, "vid"):
            self.gaussians = nn.ModuleList(
                Gaussian(s[0], t[0], inner=self._mid_channels or t[0]) for s, t in zip(student, teacher, strict=True)
            )

    @property
    def needs(self) -> Needs:
        """The same stages of both networks."""
        return Needs(teacher=frozenset({"logits", *self._stages}), student=frozenset(self._stages))

    def forward(self, batch: MethodInput) -> Tensor:
        """The sum over stages."""
        student, teacher = batch.student.features, batch.taught.features
        terms = [
            gaussian(student[stage], teacher[stage])
            for gaussian, stage in zip(self.gaussians, self._stages, strict=True)
        ]
        return torch.stack(terms).sum()


class Gaussian(nn.Module):
    """The likelihood of one teacher's map.

    Args:
        channels: of the student's map.
        width: channels of the teacher's.
        inner: channels between the regression's convolutions.
    """

    def __init__(self, channels: int, width: int, *, inner: int) -> None:
        super().__init__()
        self.regressor = nn.Sequential(
            convolution(channels, inner), nn.ReLU(), convolution(inner, inner), nn.ReLU(), convolution(inner, width)
        )
        self.log_scale = nn.Parameter(torch.full((width,), math.log(math.expm1(_INITIAL_VARIANCE - _EPS))))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean over all elements of ((mean - teacher)^2 / variance + log variance) / 2."""
        source, target = pool_larger(student, teacher)
        with as_computed(source):
            mean = self.regressor(source)
        variance = softplus(self.log_scale)[:, None, None] + _EPS
        error = mse_loss(in_float32(mean), in_float32(target), reduction="none")
        return 0.5 * (error / variance + variance.log()).mean()


METHOD = VID
