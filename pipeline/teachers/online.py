"""The teacher as a network that runs beside the student, on the same views."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from pipeline.data.loader import Batch
from pipeline.devices.numerics import half_dtype, running_in
from pipeline.models.measures import map_shapes
from pipeline.models.network import Network
from pipeline.models.outputs import Outputs
from pipeline.teachers.base import Teacher
from pipeline.teachers.graph import GraphedForward

Prepare = Callable[[torch.Tensor], torch.Tensor]
_CONVOLUTIONS = frozenset({nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward})


class OnlineTeacher:
    """A frozen network; its body in half precision, BatchNorm, pooling and classifier in float32.

    Args:
        network: the teacher, with the taps that the method needs.
        device: where it runs.
        precision: "fp32", "bf16" or "fp16" for the body.
        memory_format: as the student's images.
        compiled: run it through torch.compile.
        graphed: launch it as a CUDA graph.
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
        graphed: bool = False,
        mode: Literal["eval", "train"] = "eval",
    ) -> None:
        network = network.to(device=device, memory_format=memory_format).requires_grad_(False)  # type: ignore[call-overload]
        network.train(mode == "train")
        self.network = network
        forward: Callable[[torch.Tensor], Outputs] = torch.compile(network) if compiled else network
        self._forward = GraphedForward(forward) if graphed else forward
        self._device, self._precision = device, precision
        self._rounded = half_dtype(precision) is None

    def outputs(self, images: torch.Tensor) -> Outputs:
        """The teacher's outputs for normalised (B, 3, H, W) float32 images, without gradient."""
        with torch.no_grad(), running_in(self._device, self._precision):
            if not self._rounded:
                _round_convolutions(self.network, images)
                self._rounded = True
            return self._forward(images)

    def map_shapes(self, resolution: int) -> dict[str, tuple[int, int, int]]:
        """(C, H, W) of its taps for images of this side."""
        with running_in(self._device, self._precision):
            return map_shapes(self.network, resolution)


class OnlineViews(Teacher):
    """An online teacher on the student's own pixels.

    Args:
        teacher: the network.
        prepare: from (B, R, R, 3) uint8 pixels to the teacher's normalised images; None where they are the student's.
    """

    def __init__(self, teacher: OnlineTeacher, prepare: Prepare | None) -> None:
        self._teacher, self._prepare = teacher, prepare
        self.network, self.map_shapes = teacher.network, teacher.map_shapes
        self.num_parameters = sum(parameter.numel() for parameter in teacher.network.parameters())

    def outputs(self, batch: Batch, images: torch.Tensor) -> Outputs:
        """See `Teacher`."""
        return self.blank(batch.images, images)

    def blank(self, pixels_BHWC: torch.Tensor, images: torch.Tensor) -> Outputs:
        """See `Teacher`."""
        return self._teacher.outputs(images if self._prepare is None else self._prepare(pixels_BHWC))


def _round_convolutions(network: nn.Module, images: torch.Tensor) -> None:
    """Keep the weights of convolutions as autocast would round them at every call: the same outputs, no casts.

    The network is run on `images` to see which of them autocast reaches: it may leave it for some. Layers that compute
    their weights first (weight standardisation) have a forward of their own, and are left alone.
    """
    dtype, layers = torch.get_autocast_dtype(images.device.type), _under_autocast(network, images)
    with torch.inference_mode(False):  # weights stay ordinary tensors where an evaluation asks first
        for parameter in (each for layer in layers for each in (layer.weight, layer.bias)):
            if isinstance(parameter, nn.Parameter):
                parameter.data = parameter.data.to(dtype)


def _under_autocast(network: nn.Module, images: torch.Tensor) -> list[nn.Module]:
    """The plain convolutions that autocast reaches whenever they run."""
    device, calls = images.device.type, dict[nn.Module, bool]()

    def note(layer: nn.Module, _: object) -> None:
        calls[layer] = calls.get(layer, True) and torch.is_autocast_enabled(device)

    plain = [layer for layer in network.modules() if type(layer).forward in _CONVOLUTIONS]
    handles = [layer.register_forward_pre_hook(note) for layer in plain]
    was_training = network.training
    network.eval()(images)
    network.train(was_training)
    for handle in handles:
        handle.remove()
    return [layer for layer, is_reached in calls.items() if is_reached]
