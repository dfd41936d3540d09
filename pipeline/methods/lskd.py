"""Logit standardisation."""

from dataclasses import replace

import torch

from pipeline.kernels.zscore_kl import standardise, zscore_kl
from pipeline.losses.lskd import LSKDLoss
from pipeline.methods._shared.method import MethodInput
from pipeline.methods._shared.wrapper import Wrapper


class LSKD(Wrapper[LSKDLoss]):
    """The base method on logits from which mean and deviation over classes were taken, both networks'.

    The student need not match the teacher's range of logits, only their order and relations. The cross-entropy sees the
    logits as they are.
    """

    def divergence(self, batch: MethodInput) -> torch.Tensor:
        """KL_T of standardised logits."""
        return zscore_kl(batch.student.logits, batch.taught.logits, batch.temperature)

    def forward(self, batch: MethodInput) -> torch.Tensor | None:
        """The base's own term, of standardised logits."""
        return super().forward(_standardised(batch))


def _standardised(batch: MethodInput) -> MethodInput:
    student, teacher = (replace(side, logits=standardise(side.logits)) for side in (batch.student, batch.taught))
    return replace(batch, student=student, teacher=teacher)
