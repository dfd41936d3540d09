"""Curriculum temperature (Li et al. 2023, arXiv:2211.16231): T is trained against the student.

T learns to make the divergence large while the student makes it small: the gradient that reaches T's module is
reversed, with a strength that grows from 0 to 1 over the first epochs.

Legend: B batch, C classes.
"""

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from pipeline.core.errors import ConfigError
from pipeline.core.ranges import ABOVE_0
from pipeline.kernels.kl import CTKD_EPS, kl
from pipeline.methods.base import R34_R18, R50_MV1, MethodInfo, MethodInput, Needs, Setting
from pipeline.methods.parts import in_float32, seeded
from pipeline.methods.registry import build_method, expanded
from pipeline.methods.wrapper import Wrapper

INFO = MethodInfo(
    paper="Li et al. 2023, arXiv:2211.16231",
    published={
        R34_R18: "71.32 (README, KD 70.83); with DKD 71.51; with PKT 71.29, SRRL 71.30 (unchecked)",
        R50_MV1: "71.16 (unchecked)",
    },
)

PRESETS: dict[str, dict[str, Any]] = {
    "ctkd": {"loops": 5, "base_args": {"ce": 1.0, "kd": 1.0}},
    "ctkd_cifar": {"loops": 10, "base_args": {"ce": 0.1, "kd": 0.9}},
    "ctkd_dkd": {"base": "dkd", "loops": 5, "base_args": {"ce": 1.0, "alpha": 1.0, "beta": 1.0, "warmup_epochs": 0}},
}

_NOT_BASES = ("ctkd", "dist", "lskd", "nkd", "supervised")
_OF_BASE: dict[str, dict[str, Any]] = {"dkd": {"beta": 1.0, "warmup_epochs": 0}}
_OF_OTHERS: dict[str, Any] = {"kd": 1.0}


class CTKD(Wrapper):
    """The base method with a learned T in its KL term; in DKD itself where that is the base.

    T = t_start + t_end * sigmoid(raw), so `t_end` is a width: T lies in 1..21, and the global one begins at 15.6. The
    factor T^2 of the loss is differentiated with it. The optimiser's weight decay pulls `raw` to 0, T to 11, as in the
    authors' code (`--decay weights` leaves it out).

    Args:
        base: method whose temperature is learned: kd, dkd, pkt, sp, vid, crd, srrl, or another with a weight `kd`.
        base_args: its hyper-parameters, a preset among them or not; where they say nothing, those of CTKD on ImageNet:
            kd 1, for dkd beta 1 and no warm-up.
        mode: "global" learns one T; "instance" one for each sample, by a network of two layers on both logits.
        schedule: of the reversal's strength over epochs; "linear", as published, stops at (loops - 1) / loops.
        loops: epochs until it is complete; 5 on ImageNet, 10 on CIFAR-100.
        t_start: least T.
        t_end: width of T's range.
        hidden: width of the instance network, which is not part of the authors' release.
        instance_form: KL of the instance mode: "readme" adds 1e-7 to the teacher's probabilities, as the only published
            code does; "kl" is exact.
    """

    def __init__(
        self,
        *,
        base: str = "kd",
        base_args: dict[str, Any] | None = None,
        mode: Literal["global", "instance"] = "global",
        schedule: Literal["cosine", "linear"] = "cosine",
        loops: int = 5,
        t_start: float = 1.0,
        t_end: float = 20.0,
        hidden: int = 128,
        instance_form: Literal["readme", "kl"] = "readme",
    ) -> None:
        if base in _NOT_BASES:
            raise ConfigError(f"ctkd learns the temperature of a KL divergence or of dkd: '{base}' cannot be its base")
        given = expanded(base, base_args or {})
        if given.get("form") == "cross_entropy":
            raise ConfigError(
                "ctkd takes KL, not cross-entropy: T would grow for the teacher's entropy, times T^2, alone"
            )
        super().__init__(build_method(base, {**_OF_BASE.get(base, _OF_OTHERS), **given}))
        if base != "dkd" and self.weights.kd == 0:
            raise ConfigError(f"ctkd with base '{base}' learns the temperature of its divergence: --kd must be above 0")
        for flag, value in (("--loops", loops), ("--t-start", t_start), ("--t-end", t_end), ("--hidden", hidden)):
            ABOVE_0.check(flag, value)
        self._mode, self._schedule, self._loops = mode, schedule, loops
        self._t_start, self._t_end, self._hidden = t_start, t_end, hidden
        self._eps = CTKD_EPS if mode == "instance" and instance_form == "readme" else 0.0

    def build(self, setting: Setting) -> None:
        """Make the base's parts and the module that gives T."""
        super().build(setting)
        self.predictor: nn.Module
        if self._mode == "global":
            self.predictor = GlobalTemperature()
        else:
            with seeded(setting.seed, "ctkd"):
                self.predictor = InstanceTemperature(setting.num_classes, self._hidden)

    @property
    def needs(self) -> Needs:
        """What the base needs, and logits."""
        needs = self.base.needs
        return replace(needs, teacher=needs.teacher | {"logits"})

    def refuses_topk(self, num_kept: int) -> str | None:
        """Never served: T begins at 15.6."""
        return "a temperature that begins near 16 needs every class's logit"

    def temperature(self, batch: MethodInput) -> torch.Tensor:
        """T, () or (B,); the gradient to its module is multiplied by `strength` of the epoch, 0 to -1."""
        raw = _Scaled.apply(self.predictor(batch), self.strength(batch.epoch))
        return self._t_start + self._t_end * torch.sigmoid(raw)

    def divergence(self, batch: MethodInput) -> torch.Tensor:
        """The base's, or the instance form."""
        if not self._eps:
            return super().divergence(batch)
        return kl(batch.student.logits, batch.taught.logits, batch.temperature, eps=self._eps)

    def strength(self, epoch: int) -> float:
        """The factor lambda of T's gradient in `epoch` (from 0), from 0 to -1; the authors count epochs from 1."""
        done = min(epoch + 1, self._loops)
        if self._schedule == "linear":
            return -min(epoch + 1, self._loops - 1) / self._loops
        return 0.5 * (1 + math.cos(math.pi * done / self._loops)) - 1


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
        raw: torch.Tensor = self.layers(both)[:, 0]
        return raw


class _Scaled(torch.autograd.Function):
    """Identity whose gradient is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return gradient * ctx.factor, None


METHOD = CTKD
