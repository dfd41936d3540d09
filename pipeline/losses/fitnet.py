"""FitNet's hint, trained jointly with the labels as public code does."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pipeline.core.fields import About
from pipeline.losses._shared.pairs import R34_R18
from pipeline.losses._shared.record import Needs, TermLoss, Weight, same_maps

Variant = Literal["repdistiller", "simkd"]


@dataclass(frozen=True)
class FitNetLoss(TermLoss):
    """Mean squared error between a regression of one student map, and the teacher's."""

    paper = "Romero et al. 2015, arXiv:1412.6550"
    published = {R34_R18: "70.66 (README of Channel-Distillation, with settings of its own)"}
    multiply_adds = {R34_R18: 13}

    weight: Weight = 100.0
    stage: Annotated[str, About("the map compared; stage1 in SimKD's and CTKD's code.")] = "stage2"
    variant: Annotated[
        Variant,
        About("where the student's map is smaller and not just half the teacher's: repdistiller refuses, simkd pools."),
    ] = "simkd"

    @property
    def needs(self) -> Needs:
        """One stage of both networks."""
        return same_maps((self.stage,))
