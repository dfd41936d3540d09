"""Knowledge distillation by softened logits."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pipeline.core.fields import About
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses._shared.record import KD, WeightedLoss


@dataclass(frozen=True)
class KDLoss(WeightedLoss):
    """ce * CE + kd * T^2 KL(teacher || student).

    The public "alpha" means opposite things: junia3/Knowledge-Distillation-With-Pytorch weighs the divergence by it
    (0.1, at T = 20), PkuDavidGuan/Distillation the cross-entropy (0.8, at T = 16), although its README says otherwise.
    """

    paper = "Hinton et al. 2015, arXiv:1503.02531"
    published = {R34_R18: "70.83 (CTKD's README), 70.27 and 70.48 (reproduced, in its issue 7)"}
    published_with = {
        "mdistiller's weights": {R34_R18: "71.03 (README)", R50_MBV1: "70.50 (README), 68.58 (unchecked)"},
        "RepDistiller's weights": {R34_R18: "70.66 (CRD's baseline in READMEs)"},
        "torchdistill's weights": {R34_R18: "71.37 (README)"},
    }
    only_alone = ("form",)

    kd: KD = 1.0
    form: Annotated[
        Literal["kl", "cross_entropy"],
        About("kl, or the cross-entropy with the teacher's probabilities: the same gradient, a greater value."),
    ] = "kl"
