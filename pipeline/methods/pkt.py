"""Probabilistic knowledge transfer (Passalis and Tefas 2018, arXiv:1803.10837).

Legend: B batch, D dimensions of an embedding.
"""

from typing import Any

import torch

from pipeline.core.ranges import ABOVE_0
from pipeline.methods.base import R34_R18, Method, MethodInfo, MethodInput, Needs, Weights
from pipeline.methods.parts import in_float32

INFO = MethodInfo(
    paper="Passalis and Tefas 2018, arXiv:1803.10837",
    published={R34_R18: "70.92 (CTKD's paper, unchecked)"},
)

PRESETS: dict[str, dict[str, Any]] = {
    "repdistiller": {"ce": 1.0, "kd": 0.0, "weight": 30000.0},
    "mdistiller": {"ce": 1.0, "kd": 0.0, "weight": 30000.0},
    "ctkd": {"ce": 1.0, "kd": 1.0, "temperature": 4.0, "weight": 30000.0},
}

_EPS = 1e-7


class PKT(Method):
    """mean over (i, j) of p_ij log(p_ij / q_ij): which samples of the batch are alike, for the teacher and the student.

    p and q are cosine similarities of embeddings, shifted to 0..1, each row divided by its sum. B is the micro-batch,
    whatever the number of ranks. The value falls as 1 / B: the public weight 30000 was tuned at 64 samples per GPU, and
    at a micro-batch of 256 it pulls a quarter as hard. `reference_batch=64` multiplies by B / 64.

    Args:
        ce: weight of the cross-entropy.
        kd: weight of the temperature-scaled divergence.
        temperature: T of that divergence.
        weight: of this term.
        reference_batch: the B for which `weight` is meant; None leaves the value as published.
    """

    def __init__(
        self,
        *,
        ce: float = 1.0,
        kd: float = 0.0,
        temperature: float = 4.0,
        weight: float = 30000.0,
        reference_batch: int | None = None,
    ) -> None:
        super().__init__()
        if reference_batch is not None:
            ABOVE_0.check("--reference-batch", reference_batch)
        self.weights = Weights(ce=ce, kd=kd, temperature=temperature, method=weight)
        self._reference_batch = reference_batch

    @property
    def needs(self) -> Needs:
        """The teacher's embedding, and its logits where the divergence is wanted."""
        return Needs(teacher=frozenset({"logits", "embedding"}))

    def forward(self, batch: MethodInput) -> torch.Tensor:
        """The divergence of the two tables of similarities."""
        assert batch.student.embedding is not None
        assert batch.taught.embedding is not None
        student_BB = _shares(in_float32(batch.student.embedding))
        teacher_BB = _shares(in_float32(batch.taught.embedding))
        term = (teacher_BB * torch.log((teacher_BB + _EPS) / (student_BB + _EPS))).mean()
        return term if self._reference_batch is None else term * (len(batch.labels) / self._reference_batch)


def _shares(embedding_BD: torch.Tensor) -> torch.Tensor:
    """(B, B) similarities, each row's sum 1."""
    unit_BD = embedding_BD / (embedding_BD.norm(dim=1, keepdim=True) + _EPS)
    similarity_BB = (unit_BD @ unit_BD.T + 1) / 2
    return similarity_BB / similarity_BB.sum(dim=1, keepdim=True)


METHOD = PKT
