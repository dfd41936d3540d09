"""Probabilistic knowledge transfer.

Legend: B batch, D dimensions of an embedding.
"""

import torch

from pipeline.losses.pkt import PKTLoss
from pipeline.methods._shared.method import Method, MethodInput
from pipeline.methods._shared.precision import in_float32

_EPS = 1e-7


class PKT(Method[PKTLoss]):
    """mean over (i, j) of p_ij log(p_ij / q_ij): which samples of the batch are alike, for the teacher and the student.

    p and q are cosine similarities of embeddings, shifted to 0..1, each row divided by its sum. B is the micro-batch,
    whatever the number of ranks. The value falls as 1 / B: the public weight 30000 was tuned at 64 samples per GPU, and
    at a micro-batch of 256 it pulls a quarter as hard. `reference_batch=64` multiplies by B / 64.
    """

    def forward(self, batch: MethodInput) -> torch.Tensor:
        """The divergence of the two tables of similarities."""
        assert batch.student.embedding is not None
        assert batch.taught.embedding is not None
        student_BB = _shares(in_float32(batch.student.embedding))
        teacher_BB = _shares(in_float32(batch.taught.embedding))
        term = (teacher_BB * torch.log((teacher_BB + _EPS) / (student_BB + _EPS))).mean()
        return term if self.loss.reference_batch is None else term * (len(batch.labels) / self.loss.reference_batch)


def _shares(embedding_BD: torch.Tensor) -> torch.Tensor:
    """(B, B) similarities, each row's sum 1."""
    unit_BD = embedding_BD / (embedding_BD.norm(dim=1, keepdim=True) + _EPS)
    similarity_BB = (unit_BD @ unit_BD.T + 1) / 2
    return similarity_BB / similarity_BB.sum(dim=1, keepdim=True)
