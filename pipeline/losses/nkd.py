"""Normalised knowledge distillation."""

from dataclasses import dataclass
from typing import Annotated

from pipeline.core.fields import About
from pipeline.core.ranges import NOT_NEGATIVE
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses._shared.record import SoftTermLoss, Temperature


@dataclass(frozen=True)
class NKDLoss(SoftTermLoss):
    """Normalised knowledge distillation: the label by the teacher's confidence, other classes by what they share."""

    paper = "Yang et al. 2023, arXiv:2303.13005"
    published = {R34_R18: "71.96 (README)", R50_MBV1: "72.58 (README)"}

    temperature: Temperature = 1.0
    gamma: Annotated[float, About("weight, in it, of the other classes.", NOT_NEGATIVE)] = 1.5
