"""Curriculum temperature: T is trained against the student.

T learns to make the divergence large while the student makes it small: the gradient that reaches T's module is
reversed, with a strength that grows from 0 to 1 over the first epochs.

Legend: B batch, C classes.
"""

import math
from typing import Any

import torch
from torch import nn

from pipeline.kernels.kl import CTKD_EPS, kl
from pipeline.losses.ctkd import CTKDLoss
from pipeline.methods._shared.connectors import seeded
from pipeline.methods._shared.method import MethodInput, Setting
from pipeline.methods._shared.precision import in_float32
from pipeline.methods._shared.wrapper import Wrapper


class CTKD(Wrapper[CTKDLoss]):
    """The base method with a learned T in its KL term; in DKD itself where that is the base.

    T = t_start + t_end * sigmoid(raw), so `t_end` is a width: T lies in 1..21, and the global one begins at 15.6. The
    factor T^2 of the loss is differentiated with it. The optimiser's weight decay pulls `raw` to 0, T to 11, as in the
    authors' code (`--decay weights` leaves it out).
    """

    def build(self, setting: Setting) -> None:
        """Make the base's parts and the module that gives T."""
        super().build(setting)
        self.predictor: nn.Module
        if self.loss.mode == "global":
            self.predictor = GlobalTemperature()
        else:
            with seeded(setting.seed, "ctkd"):
                self.predictor = InstanceTemperature(setting.num_classes, self.loss.hidden)

    def temperature(self, batch: MethodInput) -> torch.Tensor:
        """T, () or (B,); the gradient to its module is multiplied by `strength` of the epoch, 0 to -1."""
        raw = _Scaled.apply(self.predictor(batch), self.strength(batch.epoch))
        return self.loss.t_start + self.loss.t_end * torch.sigmoid(raw)

    def divergence(self, batch: MethodInput) -> torch.Tensor:
        """The base's, or the instance form."""
        if self.loss.mode == "global" or self.loss.instance_form == "kl":
            return super().divergence(batch)
        return kl(batch.student.logits, batch.taught.logits, batch.temperature, eps=CTKD_EPS)

    def strength(self, epoch: int) -> float:
        """The factor lambda of T's gradient in `epoch` (from 0), from 0 to -1; the authors count epochs from 1."""
        done = min(epoch + 1, self.loss.loops)
        if self.loss.schedule == "linear":
            return -min(epoch + 1, self.loss.loops - 1) / self.loss.loops
        return 0.5 * (1 + math.cos(math.pi * done / self.loss.loops)) - 1


class GlobalTemperature(nn.Module):
    """One number for all samples."""

    def __init__(self) -> None:
        super().__init__()
        self.global_T = nn.Parameter(torch.ones(1))

    def forward(self, batch: MethodInput) -> torch.Tensor:
        """()."""
        return self.global_T[0]


class InstanceTemperature(nn.Module):
    """One number for each sample, from what both networks predict for it.

    The predictions are read without gradient: a reversed gradient must reach this module alone, not the student.

    Args:
        num_classes: C.
        hidden: width of the layer between.
    """

    def __init__(self, num_classes: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * num_classes, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, batch: MethodInput) -> torch.Tensor:
        """(B,)."""
        both = torch.cat((in_float32(batch.taught.logits), in_float32(batch.student.logits.detach())), dim=1)
        return self.layers(both)[:, 0]


class _Scaled(torch.autograd.Function):
    """Identity whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return gradient * ctx.factor, None
