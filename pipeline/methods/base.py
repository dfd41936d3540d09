"""What a distillation method is.

The total loss is always ce * CE + kd * KL_T + weight * method: three explicit weights, never one "alpha", whose meaning
is opposite in public code bases.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from pipeline.core.errors import ConfigError
from pipeline.core.ranges import ABOVE_0, NOT_NEGATIVE
from pipeline.devices.world import World
from pipeline.kernels.kl import kl
from pipeline.models.outputs import Outputs

TEACHER_NOTHING: frozenset[str] = frozenset()
TEACHER_LOGITS = frozenset({"logits"})
R34_R18, R50_MV1, R50_R18 = "ResNet-34 -> ResNet-18", "ResNet-50 -> MobileNetV1", "ResNet-50 -> ResNet-18"
_NOT_MAPS = frozenset({"logits", "embedding", "head"})
_MANY_CLASSES = 100  # of a generous top-k row


@dataclass(frozen=True)
class MethodInfo:
    """What the world knows of a method; the constant `INFO` of its file.

    Attributes:
        paper: first author, year and where to read it.
        published: ImageNet top-1 in per cent by teacher-student pair, with its source: {R34_R18: "71.17 (README)"}.
            Figures recalled from a paper and not looked up are marked "unchecked".
    """

    paper: str
    published: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Needs:
    """What a method has to be given.

    Attributes:
        teacher: teacher outputs: "logits", "embedding", "head", or names of feature taps.
        student: names of the student's feature taps.
        norms: those of the teacher's ".pre" taps whose BatchNorm's scale and shift are wanted, see `Setting`.
        teacher_mode: "train" runs the teacher on the batch's own BatchNorm statistics, and its running averages drift.
    """

    teacher: frozenset[str] = TEACHER_NOTHING
    student: frozenset[str] = frozenset()
    norms: frozenset[str] = frozenset()
    teacher_mode: Literal["eval", "train"] = "eval"


@dataclass(frozen=True)
class Weights:
    """Factors of the three terms of the loss, and the temperature.

    Attributes:
        ce: of the cross-entropy with the labels.
        kd: of the temperature-scaled KL divergence from the teacher.
        temperature: T of that divergence, and of an own term that softens logits (DKD, DIST, NKD).
        method: of the method's own term.
    """

    ce: float = 1.0
    kd: float = 0.0
    temperature: float = 4.0
    method: float = 0.0

    def __post_init__(self) -> None:
        for name in ("ce", "kd", "method"):
            NOT_NEGATIVE.check("--weight" if name == "method" else f"--{name}", getattr(self, name))
        ABOVE_0.check("--temperature", self.temperature)


@dataclass(frozen=True)
class MethodInput:
    """One micro-batch as a method sees it.

    Attributes:
        student: the student's outputs, with gradient.
        teacher: the teacher's outputs, detached; None where the method needs none.
        labels: (B,) int64.
        ids: (B,) int64 sample ids.
        epoch: epoch, from 0.
        temperature: T of softened logits in this batch, `Method.temperature`: a number, or learned: one, or (B,).
    """

    student: Outputs
    teacher: Outputs | None
    labels: torch.Tensor
    ids: torch.Tensor
    epoch: int
    temperature: float | torch.Tensor = 1.0

    @property
    def taught(self) -> Outputs:
        """The teacher's outputs, of a method that needs some."""
        if self.teacher is None:
            raise ConfigError("the method reads teacher outputs and was given none: its `needs` must name them")
        return self.teacher


@dataclass(frozen=True)
class Setting:
    """What a method will meet in its run, known before the first batch: its trainable parts are made to fit.

    Attributes:
        student_maps: (C, H, W) of each of the student's taps that the method needs.
        teacher_maps: (C, H, W) of each of the teacher's.
        student_dim: dimensions of the student's embedding.
        teacher_dim: dimensions of the teacher's; None without a teacher.
        num_classes: C of the logits.
        class_counts: samples of each class of the whole data set; ids are contiguous by class, in label order.
        micro_batch: B of every batch that `forward` sees in training.
        resolution: side of the images in pixels.
        head: the teacher's classifier, weight (C, D) and bias (C,) in float32, where `needs` names it.
        teacher_norms: scale and shift (C_k,) in float32 of the BatchNorm that ends in each tap of `Needs.norms`.
        seed: for the initial values of trainable parts (use `derive_seed` with a position of the method's own).
    """

    student_dim: int
    num_classes: int
    student_maps: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    teacher_maps: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    teacher_dim: int | None = None
    class_counts: tuple[int, ...] = ()
    micro_batch: int = 1
    resolution: int = 224
    head: tuple[torch.Tensor, torch.Tensor] | None = None
    teacher_norms: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    seed: int = 0


class Method(nn.Module, ABC):
    """A loss with its weights, its trainable parts (as submodules) and its `needs`. Never calls a teacher."""

    weights: Weights

    def build(self, setting: Setting) -> None:
        """Make the trainable parts; called once, before the method is moved to its device. Default: there are none."""

    def student_network(self, student: nn.Module) -> nn.Module:
        """The network that is trained, evaluated, averaged and saved as the student; called once, after `build`.

        Default: `student` itself. A method whose student is more than the network (SimKD) wraps it here.
        """
        return student

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What `forward` reads."""

    def refuses_topk(self, num_kept: int) -> str | None:
        """Why the teacher's `num_kept` greatest logits and their tail mass do not serve; None where they do.

        Default: they serve CE and KL at temperature 1. At T = 4 with 20 of 1,000 kept, the gradient is off by more than
        its own length.
        """
        if self.weights.method == 0 and self.weights.temperature == 1:
            return None
        return f"the loss needs all logits (temperature {self.weights.temperature:g}; top-k serves KL at temperature 1)"

    def temperature(self, batch: MethodInput) -> float | torch.Tensor:
        """T of this batch: a number, or a tensor () or (B,) with gradient to what predicts it."""
        return self.weights.temperature

    def divergence(self, batch: MethodInput) -> torch.Tensor:
        """The term that `Weights.kd` weighs: KL_T at the batch's temperature, or a method's own form of it."""
        return kl(batch.student.logits, batch.taught.logits, batch.temperature)

    @abstractmethod
    def forward(self, batch: MethodInput) -> torch.Tensor | None:
        """The method's own term, unweighted, a float32 scalar; None for methods that are CE and KL alone.

        float64 inputs give a float64 term.
        """

    def begin_step(self) -> None:
        """Before the first micro-batch of a step: drop what a pass outside of any step left behind."""

    def end_step(self, world: World, num_micro_batches: int) -> None:
        """After the last micro-batch's backward pass, on every rank.

        State that training writes (CRD's banks) is written here, from all micro-batches of the step, so that none of
        them sees another one's and results do not depend on the number of ranks.

        Args:
            world: the ranks; rank r has run the micro-batches r, r + size, ...
            num_micro_batches: of the step, over all ranks.
        """

    @property
    def stores(self) -> tuple[str, ...]:
        """Kinds of store that hold what the method reads, cheapest first; () where its teacher must run online."""
        wanted = self.needs.teacher
        if not wanted or wanted - _NOT_MAPS or self.needs.teacher_mode == "train":
            return ()
        if wanted & {"embedding", "head"}:
            return ("embedding",)
        return (*(("topk",) if self.refuses_topk(_MANY_CLASSES) is None else ()), "embedding", "dense")

    def plain_student(self) -> bool:
        """Whether the trained student is the network alone, without parts of the method."""
        return True
