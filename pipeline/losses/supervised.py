"""No teacher: cross-entropy with the labels. This is how teachers are trained."""

from dataclasses import dataclass

from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses._shared.record import LabelWeight, Loss, Needs, Weights


@dataclass(frozen=True)
class SupervisedLoss(Loss):
    """ce * CE."""

    paper = "cross-entropy with the labels"
    published = {
        R34_R18: "69.75 to 70.26 (the student alone, by paper)",
        R50_MBV1: "68.87, 69.63 and 70.13 (the student alone, by paper)",
    }

    ce: LabelWeight = 1.0

    @property
    def needs(self) -> Needs:
        """Nothing."""
        return Needs()

    @property
    def weights(self) -> Weights:
        """Labels alone."""
        return Weights(self.ce)
