"""The teacher as a network that runs beside the student, on the same views."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import nn

from pipeline.data.loader import Batch
from pipeline.models.network import Network
from pipeline.models.outputs import Outputs
from pipeline.teachers.base import Teacher


class OnlineTeacher:
    """A frozen network; its body in half precision, pooling and classifier in float32.

    Args:
        network: the teacher, with the taps that the method needs.
        device: where it runs.
        precision: "fp32", "bf16" or "fp16" for the body.
        memory_format: as the student's images.
        compiled: run it through torch.compile.
        mode: "eval"; or "train", in which BatchNorm takes the batch's own statistics (OFD as published).
    """

    def __init__(
        self,
        network: Network,
        *,
        device: torch.device,
        precision: str,
        memory_format: torch.memory_format,
        compiled: bool,
        mode: Literal["eval", "train"] = "eval",
    ) -> None:
        network = network.to(device=device, memory_format=memory_format).requires_grad_(False)  # type: ignore[call-overload]
        network.train(mode == "train")
        keep_pooling_in_float32(network)
        self.network = network
        self._forward = torch.compile(network) if compiled else network
        self._device, self._precision = device, precision

    def outputs(self, images: torch.Tensor) -> Outputs:
        """The teacher's outputs for normalised (B, 3, H, W) float32 images, without gradient."""
        with torch.no_grad(), autocast(self._device, self._precision):
            outputs: Outputs = self._forward(images)
        return outputs


class OnlineViews(Teacher):
    """An online teacher on the student's own pixels.

    Args:
        teacher: the network.
        prepare: from (B, R, R, 3) uint8 pixels to the teacher's normalised images.
    """

    def __init__(self, teacher: OnlineTeacher, prepare: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._teacher, self._prepare = teacher, prepare
        self.network = teacher.network
        self.num_parameters = sum(parameter.numel() for parameter in teacher.network.parameters())

    def outputs(self, batch: Batch) -> Outputs:
        """See `Teacher`."""
        return self.blank(batch.images)

    def blank(self, images_BHWC: torch.Tensor) -> Outputs:
        """See `Teacher`."""
        return self._teacher.outputs(self._prepare(images_BHWC))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Autocast to "bf16" or "fp16" on the device; nothing for "off" and "fp32"."""
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in dtypes:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtypes[precision])


def keep_pooling_in_float32(network: nn.Module) -> None:
    """Make global pooling take float32 under autocast: an average in half precision would be rounded before W f + b."""
    for module in network.modules():
        if isinstance(module, nn.AdaptiveAvgPool2d):
            module.register_forward_pre_hook(_to_float32)


def _to_float32(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(value.float() for value in inputs)
