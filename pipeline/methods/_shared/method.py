"""What a distillation method is: the mathematics of the loss that a record of `pipeline/losses` describes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import nn

from pipeline.config import method_flag
from pipeline.core.errors import ConfigError
from pipeline.core.fields import check_numbers
from pipeline.devices.world import World
from pipeline.kernels.kl import kl
from pipeline.losses._shared.record import Loss, Needs, Weights
from pipeline.models.outputs import Outputs

Record = TypeVar("Record", bound=Loss)


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
        seed: for the initial values of trainable parts (`seeded(setting.seed, "name")`, with the method's own name).
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


class Method(nn.Module, ABC, Generic[Record]):
    """A loss with its trainable parts (as submodules). Never calls a teacher.

    Args:
        loss: its record.

    Raises:
        ConfigError: a number outside of its range.
    """

    def __init__(self, loss: Record) -> None:
        super().__init__()
        check_numbers(loss, method_flag)
        self.loss = loss

    @property
    def needs(self) -> Needs:
        """What `forward` reads."""
        return self.loss.needs

    @property
    def weights(self) -> Weights:
        """Factors of the terms."""
        return self.loss.weights

    def build(self, setting: Setting) -> None:
        """Make the trainable parts; called once, before the method is moved to its device. Default: there are none."""

    def student_network(self, student: nn.Module) -> nn.Module:
        """The network that is trained, evaluated, averaged and saved as the student; called once, after `build`.

        Default: `student` itself. A method whose student is more than the network (SimKD) wraps it here.
        """
        return student

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

    def plain_student(self) -> bool:
        """Whether the trained student is the network alone, without parts of the method."""
        return True
