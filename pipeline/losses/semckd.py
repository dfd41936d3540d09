"""SemCKD, cross-layer distillation with semantic calibration."""

from dataclasses import dataclass
from typing import Annotated

from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0
from pipeline.losses._shared.pairs import R34_R18
from pipeline.losses._shared.record import KD, STAGES, Needs, TermLoss, Weight


@dataclass(frozen=True)
class SemCKDLoss(TermLoss):
    """Every pair of stages regressed, weighed by attention; its parameters fit one micro-batch size."""

    paper = "Chen et al. 2021, arXiv:2012.03236"
    published = {R34_R18: "70.87 (README)"}
    multiply_adds = {R34_R18: 5531}

    kd: KD = 1.0
    weight: Weight = 50.0
    stages: Annotated[tuple[str, ...], About("the student's maps.")] = STAGES
    teacher_stages: Annotated[
        tuple[str, ...] | None, About("the teacher's, of any number (default: the student's).")
    ] = None
    soft: Annotated[float, About("divides the attention's logits.", ABOVE_0)] = 1.0

    @property
    def of_teacher(self) -> tuple[str, ...]:
        """The teacher's stages."""
        return self.stages if self.teacher_stages is None else self.teacher_stages

    @property
    def needs(self) -> Needs:
        """The stages of each network."""
        return Needs(teacher=frozenset({"logits", *self.of_teacher}), student=frozenset(self.stages))
