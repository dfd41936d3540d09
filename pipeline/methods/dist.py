"""DIST: relations between and within classes (Huang et al. 2022, arXiv:2205.10536).

Legend: B batch, C classes.
"""

from typing import Any

import torch

from pipeline.core.ranges import NOT_NEGATIVE
from pipeline.methods.base import R34_R18, R50_MV1, TEACHER_LOGITS, Method, MethodInfo, MethodInput, Needs, Weights
from pipeline.methods.parts import in_float32

INFO = MethodInfo(
    paper="Huang et al. 2022, arXiv:2205.10536",
    published={
        R34_R18: "72.07 (README; Nesterov, no decay of BN and biases), 71.95 (reproduced)",
        R50_MV1: "73.24 (README)",
    },
)

PRESETS: dict[str, dict[str, Any]] = {
    "official": {"ce": 1.0, "weight": 2.0, "beta": 1.0, "gamma": 1.0, "temperature": 1.0},
    "official_cifar": {"ce": 1.0, "weight": 1.0, "beta": 2.0, "gamma": 2.0, "temperature": 4.0},
}

_EPS = 1e-8
_ENOUGH_CLASSES = 100  # of 1000: the gradient is then off by 4 %, with 20 by 23 %


class DIST(Method):
    """T^2 (beta (1 - mean correlation of rows) + gamma (1 - mean correlation of columns)) of softened probabilities.

    Rows are samples, columns are classes over the micro-batch: the second term needs a micro-batch of some size, and is
    constant for one of a single sample.

    Args:
        ce: weight of the cross-entropy.
        kd: weight of the temperature-scaled divergence.
        temperature: T of this term's probabilities (and of that divergence).
        weight: of this term.
        beta: weight of the correlation between classes, sample by sample.
        gamma: weight of the correlation within classes, over samples.
    """

    def __init__(
        self,
        *,
        ce: float = 1.0,
        kd: float = 0.0,
        temperature: float = 1.0,
        weight: float = 2.0,
        beta: float = 1.0,
        gamma: float = 1.0,
    ) -> None:
        super().__init__()
        NOT_NEGATIVE.check("--beta", beta)
        NOT_NEGATIVE.check("--method-gamma", gamma)
        self.weights = Weights(ce=ce, kd=kd, temperature=temperature, method=weight)
        self._beta, self._gamma = beta, gamma

    @property
    def needs(self) -> Needs:
        """The teacher's logits."""
        return Needs(teacher=TEACHER_LOGITS)

    def refuses_topk(self, num_kept: int) -> str | None:
        """Correlations see the tail: 100 classes and a temperature of 1 are the least."""
        if self.weights.temperature <= 1 and num_kept >= _ENOUGH_CLASSES:
            return None
        return f"DIST serves top-k rows at temperature 1 with {_ENOUGH_CLASSES} classes or more ({num_kept} are kept)"

    def forward(self, batch: MethodInput) -> torch.Tensor:
        """Both correlations."""
        student_BC = torch.softmax(in_float32(batch.student.logits) / batch.temperature, dim=1)
        teacher_BC = torch.softmax(in_float32(batch.taught.logits) / batch.temperature, dim=1)
        between = 1 - _row_correlations(student_BC, teacher_BC).mean()
        within = 1 - _row_correlations(student_BC.T, teacher_BC.T).mean()
        return batch.temperature**2 * (self._beta * between + self._gamma * within)


def _row_correlations(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Pearson's correlation of each pair of rows; 0 where a row is constant."""
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    return (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1) + _EPS)


METHOD = DIST
