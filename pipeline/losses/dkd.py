"""Decoupled knowledge distillation."""

from dataclasses import dataclass
from typing import Annotated

from pipeline.core.fields import About
from pipeline.core.ranges import NOT_NEGATIVE
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses._shared.record import SoftTermLoss, Temperature


@dataclass(frozen=True)
class DKDLoss(SoftTermLoss):
    """Decoupled knowledge distillation: how sure of the label, and how the rest is shared, weighed apart."""

    paper = "Zhao et al. 2022, arXiv:2203.08679"
    published = {R34_R18: "71.70 (README)", R50_MBV1: "72.05 (README)"}

    temperature: Temperature = 1.0
    alpha: Annotated[float, About("weight, in it, of the label against the rest.", NOT_NEGATIVE)] = 1.0
    beta: Annotated[
        float,
        About("weight, in it, of how the rest is shared; 2 for MobileNetV1, 2 to 8 on CIFAR-100.", NOT_NEGATIVE),
    ] = 0.5
    warmup_epochs: Annotated[
        int, About("epochs over which the term rises linearly to its weight, the first among them.", NOT_NEGATIVE)
    ] = 1
