"""Knowledge distillation by softened logits."""

import torch
from torch.nn.functional import log_softmax

from pipeline.losses.kd import KDLoss
from pipeline.methods._shared.method import Method, MethodInput
from pipeline.methods._shared.precision import in_float32


class KD(Method[KDLoss]):
    """loss = ce * CE + kd * T^2 KL(teacher || student)."""

    def divergence(self, batch: MethodInput) -> torch.Tensor:
        """KL_T, with the teacher's entropy added where the form asks for it."""
        divergence = super().divergence(batch)
        if self.loss.form == "kl":
            return divergence
        temperature = self.weights.temperature  # a number: CTKD refuses to learn it in this form
        log_BC = log_softmax(in_float32(batch.taught.logits) / temperature, dim=1)
        return divergence - temperature**2 * (log_BC.exp() * log_BC).sum(dim=1).mean()

    def forward(self, batch: MethodInput) -> None:
        """No term of its own: the divergence is part of every method's loss."""
        return
