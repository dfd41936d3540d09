"""Decoupled knowledge distillation (Zhao et al. 2022, arXiv:2203.08679)."""

from typing import Any

import torch

from pipeline.core.ranges import NOT_NEGATIVE
from pipeline.kernels.dkd import dkd
from pipeline.methods.base import R34_R18, R50_MV1, TEACHER_LOGITS, Method, MethodInfo, MethodInput, Needs, Weights

INFO = MethodInfo(
    paper="Zhao et al. 2022, arXiv:2203.08679",
    published={R34_R18: "71.70 (README)", R50_MV1: "72.05 (README)"},
)

PRESETS: dict[str, dict[str, Any]] = {
    "mdistiller": {"ce": 1.0, "alpha": 1.0, "beta": 0.5, "temperature": 1.0, "warmup_epochs": 1},
    "mdistiller_mbv1": {"ce": 1.0, "alpha": 1.0, "beta": 2.0, "temperature": 1.0, "warmup_epochs": 1},
    "mdistiller_cifar": {"ce": 1.0, "alpha": 1.0, "beta": 8.0, "temperature": 4.0, "warmup_epochs": 20},
    "ctkd": {"ce": 1.0, "alpha": 1.0, "beta": 1.0, "temperature": 4.0, "warmup_epochs": 0},
}


class DKD(Method):
    """warm-up * (alpha * TCKD + beta * NCKD): how sure of the label, and how the rest is shared, weighed apart.

    TCKD is T^2 KL of (p_label, 1 - p_label), NCKD is T^2 KL of the other classes' shares, both at temperature T and in
    log space: finite where the published code gives infinities. NCKD is 0 with two classes.

    Args:
        ce: weight of the cross-entropy.
        kd: weight of the whole temperature-scaled divergence, which DKD replaces.
        temperature: T.
        weight: of this term.
        alpha: of TCKD.
        beta: of NCKD: 0.5 for ResNet-18, 2 for MobileNetV1, 2 to 8 on CIFAR-100, by pair.
        warmup_epochs: epochs over which the term rises linearly to its weight; the first has 1 / warmup_epochs of it.
    """

    def __init__(
        self,
        *,
        ce: float = 1.0,
        kd: float = 0.0,
        temperature: float = 1.0,
        weight: float = 1.0,
        alpha: float = 1.0,
        beta: float = 0.5,
        warmup_epochs: int = 1,
    ) -> None:
        super().__init__()
        for flag, value in (("--alpha", alpha), ("--beta", beta), ("--method-warmup-epochs", warmup_epochs)):
            NOT_NEGATIVE.check(flag, value)
        self.weights = Weights(ce=ce, kd=kd, temperature=temperature, method=weight)
        self._alpha, self._beta, self._warmup_epochs = alpha, beta, warmup_epochs

    @property
    def needs(self) -> Needs:
        """The teacher's logits."""
        return Needs(teacher=TEACHER_LOGITS)

    def refuses_topk(self, num_kept: int) -> str | None:
        """Top-k rows serve at temperature 1."""
        return None if self.weights.temperature <= 1 else super().refuses_topk(num_kept)

    def forward(self, batch: MethodInput) -> torch.Tensor:
        """Both parts, at the batch's temperature."""
        share = min((batch.epoch + 1) / self._warmup_epochs, 1.0) if self._warmup_epochs else 1.0
        return share * dkd(
            batch.student.logits,
            batch.taught.logits,
            batch.labels,
            batch.temperature,
            alpha=self._alpha,
            beta=self._beta,
        )


METHOD = DKD
