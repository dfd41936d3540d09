"""Attention transfer."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pipeline.core.fields import About
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses._shared.record import MapsLoss, Weight


@dataclass(frozen=True)
class ATLoss(MapsLoss):
    """Mean squared difference of normalised attention maps, summed over stages."""

    paper = "Zagoruyko and Komodakis 2017, arXiv:1612.03928"
    published = {R34_R18: "70.70 (READMEs), 70.90 (torchdistill)", R50_MBV1: "69.56 (unchecked), 70.72 (NORM)"}

    weight: Weight = 1000.0
    variant: Annotated[
        Literal["repdistiller", "seed004"],
        About("repdistiller is the paper's; seed004 is that of PkuDavidGuan/Distillation, worse than no teacher."),
    ] = "repdistiller"
