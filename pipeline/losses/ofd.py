"""OFD, a comprehensive overhaul of feature distillation: margin ReLU."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pipeline.core.fields import About
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses._shared.record import STAGES, Needs, TermLoss, Weight, before_activation, same_maps


@dataclass(frozen=True)
class OFDLoss(TermLoss):
    """Distance between maps before the ReLU, where the teacher's margin says that it matters."""

    paper = "Heo et al. 2019, arXiv:1904.01866"
    published = {R34_R18: "70.81 (unchecked), 71.08 (NORM)", R50_MBV1: "71.25 (README, of the best epoch)"}
    multiply_adds = {R34_R18: 51, R50_MBV1: 411}

    weight: Weight = 1e-4
    stages: Annotated[
        tuple[str, ...], About("the maps compared, shallow to deep; mdistiller takes the last three.")
    ] = STAGES
    teacher_mode: Annotated[
        Literal["eval", "train"],
        About("train, as the authors mean it, lets the teacher normalise by the micro-batch's statistics."),
    ] = "eval"

    @property
    def taps(self) -> tuple[str, ...]:
        """The stages before their last ReLU."""
        return before_activation(self.stages)

    @property
    def needs(self) -> Needs:
        """The same taps of both networks, and the teacher's BatchNorm there."""
        return replace(same_maps(self.taps), norms=frozenset(self.taps), teacher_mode=self.teacher_mode)
