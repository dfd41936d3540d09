"""DIST: relations between and within classes.

Legend: B batch, C classes.
"""

import torch

from pipeline.losses.dist import DISTLoss
from pipeline.methods._shared.method import Method, MethodInput
from pipeline.methods._shared.precision import in_float32

_EPS = 1e-8


class DIST(Method[DISTLoss]):
    """T^2 (beta (1 - mean correlation of rows) + gamma (1 - mean correlation of columns)) of softened probabilities.

    Rows are samples, columns are classes over the micro-batch: the second term needs a micro-batch of some size, and is
    constant for one of a single sample.
    """

    def forward(self, batch: MethodInput) -> torch.Tensor:
        """Both correlations."""
        student_BC = torch.softmax(in_float32(batch.student.logits) / batch.temperature, dim=1)
        teacher_BC = torch.softmax(in_float32(batch.taught.logits) / batch.temperature, dim=1)
        between = 1 - _row_correlations(student_BC, teacher_BC).mean()
        within = 1 - _row_correlations(student_BC.T, teacher_BC.T).mean()
        return batch.temperature**2 * (self.loss.beta * between + self.loss.gamma * within)


def _row_correlations(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Pearson's correlation of each pair of rows; 0 where a row is constant."""
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    return (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1) + _EPS)
