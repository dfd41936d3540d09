"""Probabilistic knowledge transfer."""

from dataclasses import dataclass

from pipeline.losses._shared.pairs import R34_R18
from pipeline.losses._shared.record import EMBEDDING, Needs, ReferenceBatch, TermLoss, Weight


@dataclass(frozen=True)
class PKTLoss(TermLoss):
    """Which samples of a micro-batch are alike by their embeddings, for the teacher and the student."""

    paper = "Passalis and Tefas 2018, arXiv:1803.10837"
    published = {R34_R18: "70.92 (CTKD's paper, unchecked)"}

    weight: Weight = 30000.0
    reference_batch: ReferenceBatch = None

    @property
    def needs(self) -> Needs:
        """The teacher's embedding, and its logits where the divergence is wanted."""
        return EMBEDDING
