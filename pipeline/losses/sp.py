"""Similarity-preserving distillation."""

from dataclasses import dataclass

from pipeline.losses._shared.pairs import R34_R18
from pipeline.losses._shared.record import MapsLoss, ReferenceBatch, Stages, Weight


@dataclass(frozen=True)
class SPLoss(MapsLoss):
    """Difference of the similarities between a micro-batch's maps."""

    paper = "Tung and Mori 2019, arXiv:1907.09682"
    published = {R34_R18: "70.62 (README)"}

    weight: Weight = 3000.0
    stages: Stages = ("stage4",)
    reference_batch: ReferenceBatch = None
