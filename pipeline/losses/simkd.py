"""SimKD, the teacher's classifier on the student's features."""

from dataclasses import dataclass
from typing import Annotated

from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0
from pipeline.losses._shared.pairs import R50_MBV1, R50_R18
from pipeline.losses._shared.record import LabelWeight, Needs, TermLoss


@dataclass(frozen=True)
class SimKDLoss(TermLoss):
    """Mean squared error between the student's projected last map and the teacher's, whose classifier is used."""

    paper = "Chen et al. 2022, arXiv:2203.14001"
    published = {R50_R18: "71.66 (author, in its issue 5), 71.59 (unchecked)", R50_MBV1: "72.25 (unchecked)"}
    multiply_adds = {R50_R18: 592, R50_MBV1: 618}

    ce: LabelWeight = 0.0
    factor: Annotated[int, About("the projector's inner channels are the teacher's over this.", ABOVE_0)] = 2
    stage: Annotated[str, About("the last map.")] = "stage4"

    @property
    def needs(self) -> Needs:
        """The last map of both networks, and the teacher's classifier."""
        return Needs(teacher=frozenset({"logits", "head", self.stage}), student=frozenset({self.stage}))
