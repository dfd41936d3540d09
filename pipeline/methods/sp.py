"""Similarity-preserving distillation (Tung and Mori 2019, arXiv:1907.09682).

Legend: B batch, N = C H W.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.core.ranges import ABOVE_0
from pipeline.methods.base import R34_R18, Method, MethodInfo, MethodInput, Needs, Weights
from pipeline.methods.parts import STAGES, check_taps, in_float32

INFO = MethodInfo(paper="Tung and Mori 2019, arXiv:1907.09682", published={R34_R18: "70.62 (README)"})

PRESETS: dict[str, dict[str, Any]] = {
    "repdistiller": {"ce": 1.0, "kd": 0.0, "weight": 3000.0},
    "mdistiller": {"ce": 1.0, "kd": 0.0, "weight": 3000.0},
    "simkd": {"ce": 1.0, "kd": 1.0, "temperature": 4.0, "weight": 3000.0},
    "ctkd": {"ce": 1.0, "kd": 1.0, "temperature": 4.0, "weight": 3000.0},
    "seed004": {"ce": 1.0, "kd": 0.0, "weight": 3000.0, "stages": STAGES},
}


class SP(Method):
    """|| G_teacher - G_student ||_F^2 / B^2, G = the maps' Gram matrix F F^T over the batch, rows of norm 1.

    B is the micro-batch, whatever the number of ranks. The value falls as 1 / B: the public weight 3000 was tuned at 64
    samples per GPU, and at a micro-batch of 256 it pulls a quarter as hard. `reference_batch=64` multiplies by B / 64.

    Args:
        ce: weight of the cross-entropy.
        kd: weight of the temperature-scaled divergence; SimKD and CTKD use 1.
        temperature: T of that divergence.
        weight: of this term.
        stages: the taps compared, summed; the last map alone in every public code but PkuDavidGuan/Distillation, which
            takes all stages.
        reference_batch: the B for which `weight` is meant; None leaves the value as published.
    """

    def __init__(
        self,
        *,
        ce: float = 1.0,
        kd: float = 0.0,
        temperature: float = 4.0,
        weight: float = 3000.0,
        stages: tuple[str, ...] = ("stage4",),
        reference_batch: int | None = None,
    ) -> None:
        super().__init__()
        check_taps("--stages", stages)
        if reference_batch is not None:
            ABOVE_0.check("--reference-batch", reference_batch)
        self.weights = Weights(ce=ce, kd=kd, temperature=temperature, method=weight)
        self._stages, self._reference_batch = tuple(stages), reference_batch

    @property
    def needs(self) -> Needs:
        """The same stages of both networks."""
        return Needs(teacher=frozenset({"logits", *self._stages}), student=frozenset(self._stages))

    def forward(self, batch: MethodInput) -> Tensor:
        """The sum over stages."""
        student, teacher = batch.student.features, batch.taught.features
        terms = [(_similarity(teacher[s]) - _similarity(student[s])).square().mean() for s in self._stages]
        size = len(batch.labels)
        scale = 1.0 if self._reference_batch is None else size / self._reference_batch
        return torch.stack(terms).sum() * scale


def _similarity(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, B) with rows of norm 1."""
    rows_BN = in_float32(features).flatten(1)
    return normalize(rows_BN @ rows_BN.T)


METHOD = SP
