"""Softmax regression representation learning."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pipeline.core.fields import About
from pipeline.core.ranges import NOT_NEGATIVE
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses._shared.record import Needs, TermLoss


@dataclass(frozen=True)
class SRRLLoss(TermLoss):
    """The student's connected features, compared with the teacher's embedding and read by the teacher's classifier."""

    paper = "Yang et al. 2021, openreview.net/forum?id=ZzwDy_wiWv"
    published = {R34_R18: "71.73 (README)", R50_MBV1: "72.49 (README)"}
    published_with = {"the pooled form and KD": {R34_R18: "71.01 (CTKD's reproduction, unchecked)"}}
    multiply_adds = {R34_R18: 13, R50_MBV1: 105}

    logit_weight: Annotated[float, About("weight, in it, of what the teacher's classifier reads.", NOT_NEGATIVE)] = 1.0
    form: Annotated[
        Literal["map", "pooled"],
        About("map, as published, connects the last map; pooled, as in SimKD and CTKD, the embedding: another method."),
    ] = "map"
    stage: Annotated[str, About("the student's map of the first form.")] = "stage4"

    @property
    def needs(self) -> Needs:
        """The teacher's embedding, logits and classifier; the student's last map for the published form."""
        student = frozenset({self.stage}) if self.form == "map" else frozenset()
        return Needs(teacher=frozenset({"logits", "embedding", "head"}), student=student)
