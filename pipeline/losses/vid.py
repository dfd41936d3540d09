"""Variational information distillation."""

from dataclasses import dataclass
from typing import Annotated

from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0
from pipeline.losses._shared.pairs import R34_R18
from pipeline.losses._shared.record import MapsLoss


@dataclass(frozen=True)
class VIDLoss(MapsLoss):
    """Likelihood of the teacher's maps given the student's, with a learned variance a channel."""

    paper = "Ahn et al. 2019, arXiv:1904.05835"
    multiply_adds = {R34_R18: 154}

    mid_channels: Annotated[
        int | None, About("channels inside each regression (default: the teacher's map's).", ABOVE_0)
    ] = None
