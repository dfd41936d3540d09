"""Variational information distillation."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, softplus

from pipeline.losses.vid import VIDLoss
from pipeline.methods._shared.connectors import convolution, seeded, shapes_of
from pipeline.methods._shared.method import Method, MethodInput, Setting
from pipeline.methods._shared.pooling import pool_larger
from pipeline.methods._shared.precision import as_computed, in_float32

_INITIAL_VARIANCE = 5.0
_EPS = 1e-5


class VID(Method[VIDLoss]):
    """Negative Gaussian log-likelihood of the teacher's map given the student's, without its constant; sum over stages.

    The mean is a regression of the student's map, the variance is one number a channel; both are trained.
    """

    def build(self, setting: Setting) -> None:
        """Make one regression for each stage."""
        student = shapes_of(self.loss.stages, setting.student_maps, whose="student")
        teacher = shapes_of(self.loss.stages, setting.teacher_maps, whose="teacher")
        with seeded(setting.seed, "vid"):
            self.gaussians = nn.ModuleList(
                Gaussian(s[0], t[0], inner=self.loss.mid_channels or t[0])
                for s, t in zip(student, teacher, strict=True)
            )

    def forward(self, batch: MethodInput) -> Tensor:
        """The sum over stages."""
        student, teacher = batch.student.features, batch.taught.features
        terms = [
            gaussian(student[stage], teacher[stage])
            for gaussian, stage in zip(self.gaussians, self.loss.stages, strict=True)
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
