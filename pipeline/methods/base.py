"""What a distillation method is.

The total loss is always ce * CE + kd * KL_T + weight * method: three explicit weights, never one "alpha", whose meaning
is opposite in public code bases.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from pipeline.core.errors import ConfigError
from pipeline.models.outputs import Outputs

TEACHER_NOTHING: frozenset[str] = frozenset()
TEACHER_LOGITS = frozenset({"logits"})


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
    """Factors of the three terms of the loss, and the temperature of the second.

    Attributes:
        ce: of the cross-entropy with the labels.
        kd: of the temperature-scaled KL divergence from the teacher.
        temperature: T of that divergence.
        method: of the method's own term.
    """

    ce: float = 1.0
    kd: float = 0.0
    temperature: float = 4.0
    method: float = 0.0

    def __post_init__(self) -> None:
        for name in ("ce", "kd", "method"):
            if getattr(self, name) < 0:
                raise ConfigError(f"the weight --{name} must not be negative, got {getattr(self, name)}")
        if self.temperature <= 0:
            raise ConfigError(f"--temperature must be above 0, got {self.temperature}")


@dataclass(frozen=True)
class MethodInput:
    """One micro-batch as a method sees it.

    Attributes:
        student: the student's outputs, with gradient.
        teacher: the teacher's outputs, detached; None where the method needs none.
        labels: (B,) int64.
        ids: (B,) int64 sample ids.
        epoch: epoch, from 0.
    """

    student: Outputs
    teacher: Outputs | None
    labels: torch.Tensor
    ids: torch.Tensor
    epoch: int


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

    @abstractmethod
    def forward(self, batch: MethodInput) -> torch.Tensor | None:
        """The method's own term, unweighted, a float32 scalar; None for methods that are CE and KL alone."""

    def plain_student(self) -> bool:
        """Whether the trained student is the network alone, without parts of the method."""
        return True
