"""Normalised knowledge distillation (Yang et al. 2023, arXiv:2303.13005).

Legend: B batch, C classes.
"""

from typing import Any

import torch
from torch.nn.functional import log_softmax

from pipeline.core.ranges import NOT_NEGATIVE
from pipeline.methods.base import R34_R18, R50_MV1, TEACHER_LOGITS, Method, MethodInfo, MethodInput, Needs, Weights
from pipeline.methods.parts import in_float32

INFO = MethodInfo(
    paper="Yang et al. 2023, arXiv:2303.13005",
    published={R34_R18: "71.96 (README)", R50_MV1: "72.58 (README)"},
)

PRESETS: dict[str, dict[str, Any]] = {"official": {"ce": 1.0, "weight": 1.0, "gamma": 1.5, "temperature": 1.0}}


class NKD(Method):
    """-p_teacher[label] log p_student[label] + gamma T^2 cross-entropy of what the other classes share, at T.

    The authors' first releases kept the label among "the other classes" by a wrong mask; here it is removed, as in the
    paper and in their later code.

    Args:
        ce: weight of the cross-entropy with the labels.
        kd: weight of the temperature-scaled divergence.
        temperature: T of the second part (and of that divergence).
        weight: of this term.
        gamma: of its second part.
    """

    def __init__(
        self,
        *,
        ce: float = 1.0,
        kd: float = 0.0,
        temperature: float = 1.0,
        weight: float = 1.0,
        gamma: float = 1.5,
    ) -> None:
        super().__init__()
        NOT_NEGATIVE.check("--method-gamma", gamma)
        self.weights = Weights(ce=ce, kd=kd, temperature=temperature, method=weight)
        self._gamma = gamma

    @property
    def needs(self) -> Needs:
        """The teacher's logits."""
        return Needs(teacher=TEACHER_LOGITS)

    def refuses_topk(self, num_kept: int) -> str | None:
        """Top-k rows serve at temperature 1."""
        return None if self.weights.temperature <= 1 else super().refuses_topk(num_kept)

    def forward(self, batch: MethodInput) -> torch.Tensor:
        """Both parts."""
        student_BC, teacher_BC = in_float32(batch.student.logits), in_float32(batch.taught.logits)
        label_B1 = batch.labels[:, None]
        target_B1 = torch.softmax(teacher_BC, dim=1).gather(1, label_B1)
        of_label = -(target_B1 * log_softmax(student_BC, dim=1).gather(1, label_B1)).mean()
        is_label_BC = torch.zeros_like(student_BC, dtype=torch.bool).scatter_(1, label_B1, True)
        # the label's log-probability of minus infinity becomes 0, as its probability is: 0 times infinity is NaN
        others_BC = log_softmax(_without(student_BC, is_label_BC) / batch.temperature, dim=1)
        others_BC = others_BC.masked_fill(is_label_BC, 0.0)
        shares_BC = torch.softmax(_without(teacher_BC, is_label_BC) / batch.temperature, dim=1)
        of_others = -(shares_BC * others_BC).sum(dim=1).mean()
        return of_label + self._gamma * batch.temperature**2 * of_others


def _without(logits_BC: torch.Tensor, removed_BC: torch.Tensor) -> torch.Tensor:
    return logits_BC.masked_fill(removed_BC, -torch.inf)


METHOD = NKD
