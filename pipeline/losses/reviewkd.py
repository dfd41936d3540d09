"""ReviewKD, distillation by knowledge review."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0, NOT_NEGATIVE
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses._shared.record import STAGES, Needs, TermLoss, before_activation

_Activation = Literal["post", "pre"]


@dataclass(frozen=True)
class ReviewKDLoss(TermLoss):
    """Student maps, fused from the deepest up, against the teacher's.

    Public code differs in the maps: the authors' ImageNet code means to read values before the last ReLU of each stage,
    but an in-place ReLU overwrites them in ResNets (not in its MobileNet); mdistiller truly reads them before.
    """

    paper = "Chen et al. 2021, arXiv:2104.09044"
    published = {R34_R18: "71.61 (README), 71.64 (torchdistill)", R50_MBV1: "72.56 (README)"}
    multiply_adds = {R34_R18: 1939, R50_MBV1: 3674}

    stages: Annotated[tuple[str, ...], About("the maps compared; the pooled embedding is the last level.")] = STAGES
    student_maps: Annotated[_Activation, About("the student's before or after their last activation.")] = "post"
    teacher_maps: Annotated[_Activation, About("the same for the teacher's.")] = "post"
    mid_channels: Annotated[int, About("channels in which levels are fused.", ABOVE_0)] = 512
    warmup_epochs: Annotated[
        int, About("epochs over which the term rises linearly to its weight; 20 on CIFAR.", NOT_NEGATIVE)
    ] = 0
    first_epoch: Annotated[
        Literal[0, 1], About("the first epoch's number in that: 0 in the authors' code, 1 in mdistiller.")
    ] = 0

    @property
    def student_taps(self) -> tuple[str, ...]:
        """The student's taps, shallow to deep."""
        return _taps(self.stages, self.student_maps)

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        """The teacher's."""
        return _taps(self.stages, self.teacher_maps)

    @property
    def needs(self) -> Needs:
        """The stages and the embedding of both networks."""
        teacher = frozenset({"logits", "embedding", *self.teacher_taps})
        return Needs(teacher=teacher, student=frozenset(self.student_taps))


def _taps(stages: tuple[str, ...], activation: _Activation) -> tuple[str, ...]:
    return stages if activation == "post" else before_activation(stages)
