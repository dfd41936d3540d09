"""Logit standardisation (Sun et al. 2024, arXiv:2403.01427)."""

from dataclasses import replace
from typing import Any, Literal

import torch

from pipeline.core.errors import ConfigError, unknown_name
from pipeline.kernels.zscore_kl import standardise, zscore_kl
from pipeline.methods.base import R34_R18, R50_MV1, MethodInfo, MethodInput
from pipeline.methods.registry import build_method
from pipeline.methods.wrapper import Wrapper

INFO = MethodInfo(
    paper="Sun et al. 2024, arXiv:2403.01427",
    published={R34_R18: "71.42 (README), 71.23 and 71.39 (reproduced)", R50_MV1: "72.18 (unchecked)"},
)

PRESETS: dict[str, dict[str, Any]] = {
    "official": {"base": "kd", "base_args": {"ce": 1.0, "kd": 9.0, "temperature": 2.0}},
    "official_dkd": {"base": "dkd", "base_args": {"ce": 1.0, "alpha": 9.0, "beta": 4.5, "temperature": 2.0}},
}

_OF_BASE: dict[str, dict[str, Any]] = {
    "kd": PRESETS["official"]["base_args"],
    "dkd": PRESETS["official_dkd"]["base_args"],
}


class LSKD(Wrapper):
    """The base method on logits from which mean and deviation over classes were taken, both networks'.

    The student need not match the teacher's range of logits, only their order and relations. The cross-entropy sees the
    logits as they are.

    Args:
        base: kd or dkd.
        base_args: its hyper-parameters, with the authors' where they say nothing: T 2, and 9 times the usual weights.
    """

    def __init__(self, *, base: Literal["kd", "dkd"] = "kd", base_args: dict[str, Any] | None = None) -> None:
        if base not in _OF_BASE:
            raise unknown_name("base of lskd", base, _OF_BASE)
        if (base_args or {}).get("preset") is not None:
            raise ConfigError(
                "lskd has its own weights, 9 times the usual ones, which a preset of its base would replace:\n"
                f"  base_args: {base_args}\n"
                "Leave out the preset among base_args, and name the hyper-parameters that are to differ."
            )
        if "form" in (base_args or {}):
            raise ConfigError("lskd takes the divergence as KL: leave out `form` among its base_args")
        super().__init__(build_method(base, {**_OF_BASE[base], **(base_args or {})}))

    def refuses_topk(self, num_kept: int) -> str | None:
        """Never served: the deviation is taken over all classes."""
        return "the deviation of the logits is taken over all classes"

    def divergence(self, batch: MethodInput) -> torch.Tensor:
        """KL_T of standardised logits."""
        return zscore_kl(batch.student.logits, batch.taught.logits, batch.temperature)

    def forward(self, batch: MethodInput) -> torch.Tensor | None:
        """The base's own term, of standardised logits."""
        return super().forward(_standardised(batch))


def _standardised(batch: MethodInput) -> MethodInput:
    student, teacher = (replace(side, logits=standardise(side.logits)) for side in (batch.student, batch.taught))
    return replace(batch, student=student, teacher=teacher)


METHOD = LSKD
