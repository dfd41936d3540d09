"""DIST: relations between and within classes."""

from dataclasses import dataclass
from typing import Annotated

from pipeline.core.fields import About
from pipeline.core.ranges import NOT_NEGATIVE
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses._shared.record import SoftTermLoss, Temperature, Weight

_ENOUGH_CLASSES = 100  # of 1000: the gradient is then off by 4 %, with 20 by 23 %


@dataclass(frozen=True)
class DISTLoss(SoftTermLoss):
    """Correlation with the teacher's probabilities, between classes and within them."""

    paper = "Huang et al. 2022, arXiv:2205.10536"
    published = {
        R34_R18: "72.07 (README; Nesterov, no decay of BN and biases), 71.95 (reproduced)",
        R50_MBV1: "73.24 (README)",
    }

    temperature: Temperature = 1.0
    weight: Weight = 2.0
    beta: Annotated[
        float, About("weight, in it, of the correlation between classes, sample by sample.", NOT_NEGATIVE)
    ] = 1.0
    gamma: Annotated[
        float,
        About("weight, in it, of the correlation within classes, over the samples of a micro-batch.", NOT_NEGATIVE),
    ] = 1.0

    def refuses_topk(self, num_kept: int) -> str | None:
        """Correlations see the tail: 100 classes and a temperature of 1 are the least."""
        if self.temperature <= 1 and num_kept >= _ENOUGH_CLASSES:
            return None
        return f"DIST serves top-k rows at temperature 1 with {_ENOUGH_CLASSES} classes or more ({num_kept} are kept)"
