"""Decoupled knowledge distillation."""

import torch

from pipeline.kernels.dkd import dkd
from pipeline.losses.dkd import DKDLoss
from pipeline.methods._shared.method import Method, MethodInput


class DKD(Method[DKDLoss]):
    """warm-up * (alpha * TCKD + beta * NCKD): how sure of the label, and how the rest is shared, weighed apart.

    TCKD is T^2 KL of (p_label, 1 - p_label), NCKD is T^2 KL of the other classes' shares, both at temperature T and in
    log space: finite where the published code gives infinities. NCKD is 0 with two classes.
    """

    def forward(self, batch: MethodInput) -> torch.Tensor:
        """Both parts, at the batch's temperature."""
        epochs = self.loss.warmup_epochs
        share = min((batch.epoch + 1) / epochs, 1.0) if epochs else 1.0
        return share * dkd(
            batch.student.logits,
            batch.taught.logits,
            batch.labels,
            batch.temperature,
            alpha=self.loss.alpha,
            beta=self.loss.beta,
        )
