"""Normalised knowledge distillation.

Legend: B batch, C classes.
"""

import torch
from torch.nn.functional import log_softmax

from pipeline.losses.nkd import NKDLoss
from pipeline.methods._shared.method import Method, MethodInput
from pipeline.methods._shared.precision import in_float32


class NKD(Method[NKDLoss]):
    """-p_teacher[label] log p_student[label] + gamma T^2 cross-entropy of what the other classes share, at T.

    The authors' first releases kept the label among "the other classes" by a wrong mask; here it is removed, as in the
    paper and in their later code.
    """

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
        return of_label + self.loss.gamma * batch.temperature**2 * of_others


def _without(logits_BC: torch.Tensor, removed_BC: torch.Tensor) -> torch.Tensor:
    return logits_BC.masked_fill(removed_BC, -torch.inf)
