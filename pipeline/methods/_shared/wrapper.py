"""A method that changes another one: everything that it does not override is the other's."""

from abc import ABC
from typing import TypeVar

import torch
from torch import nn

from pipeline.devices.world import World
from pipeline.losses._shared.wrapping import WrapperLoss
from pipeline.methods._shared.method import Method, MethodInput, Setting
from pipeline.methods._shared.registry import method_of

Wrapping = TypeVar("Wrapping", bound=WrapperLoss)


class Wrapper(Method[Wrapping], ABC):
    """Holds `base`, the method that is changed, made of the base's record."""

    def __init__(self, loss: Wrapping) -> None:
        super().__init__(loss)
        self.base = method_of(loss.base)

    def build(self, setting: Setting) -> None:
        """Make the base's trainable parts."""
        self.base.build(setting)

    def student_network(self, student: nn.Module) -> nn.Module:
        """The base's."""
        return self.base.student_network(student)

    def divergence(self, batch: MethodInput) -> torch.Tensor:
        """The base's."""
        return self.base.divergence(batch)

    def forward(self, batch: MethodInput) -> torch.Tensor | None:
        """The base's own term."""
        return self.base(batch)

    def begin_step(self) -> None:
        """Told to the base."""
        self.base.begin_step()

    def end_step(self, world: World, num_micro_batches: int) -> None:
        """Told to the base."""
        self.base.end_step(world, num_micro_batches)

    def plain_student(self) -> bool:
        """The base's."""
        return self.base.plain_student()
