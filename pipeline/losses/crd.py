"""Contrastive representation distillation."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0, SHARE
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses._shared.record import EMBEDDING, Needs, TermLoss, Weight


@dataclass(frozen=True)
class CRDLoss(TermLoss):
    """A sample's two embeddings against many others from memory banks."""

    paper = "Tian et al. 2020, arXiv:1910.10699"
    published = {R34_R18: "71.17 (README), 70.93 and 70.43 (reproduced)", R50_MBV1: "71.37 (README)"}
    published_with = {"KD": {R34_R18: "71.38 (unchecked)"}}

    weight: Weight = 0.8
    feature_dim: Annotated[int, About("dimensions in which embeddings are compared.", ABOVE_0)] = 128
    num_negatives: Annotated[int, About("other samples that each is compared with.", ABOVE_0)] = 16384
    contrast_temperature: Annotated[float, About("temperature of these comparisons.", ABOVE_0)] = 0.07
    momentum: Annotated[float, About("share of a bank's old row that is kept.", SHARE)] = 0.5
    positive: Annotated[
        Literal["exact", "relax"],
        About("compare with the sample itself (exact) or a random sample of its class (relax)."),
    ] = "exact"

    @property
    def needs(self) -> Needs:
        """The teacher's embedding, and its logits where the divergence is wanted."""
        return EMBEDDING
