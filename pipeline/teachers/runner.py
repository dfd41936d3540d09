"""The teacher as a network that is run: beside the student on the same views, or over a store's rows."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from pipeline.data.loader import Batch
from pipeline.devices.numerics import half_dtype, running_in
from pipeline.models.measures import Affine, head_values, map_shapes
from pipeline.models.network import Network
from pipeline.models.outputs import Outputs
from pipeline.teachers.base import Teacher
from pipeline.teachers.graph import GraphedForward
from pipeline.teachers.preparation import Prepare

_CONVOLUTIONS = frozenset({nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward})


class TeacherRunner(Teacher):
    """A frozen network; its body in half precision, BatchNorm, pooling and classifier in float32.

    Args:
        network: the teacher, with the taps that the method needs.
        device: where it runs.
        precision: "fp32", "bf16" or "fp16" for the body.
        memory_format: of its images.
        prepare: from (B, R, R, 3) uint8 pixels to its normalised images; None where they are the student's.
        batch: images of every forward pass over pixels; None for as many as come.
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
        memory_format: torch.memory_format = torch.channels_last,
        prepare: Prepare | None = None,
        batch: int | None = None,
        compiled: bool = False,
        graphed: bool = False,
        mode: Literal["eval", "train"] = "eval",
    ) -> None:
        network = network.to(device=device, memory_format=memory_format).requires_grad_(False)  # type: ignore[call-overload]
        network.train(mode == "train")
        self.network, self.device, self.batch = network, device, batch
        self.num_parameters = sum(parameter.numel() for parameter in network.parameters())
        forward: Callable[[torch.Tensor], Outputs] = torch.compile(network) if compiled else network
        self._forward = GraphedForward(forward) if graphed else forward
        self._prepare, self._precision = prepare, precision
        self._rounded = half_dtype(precision) is None

    def outputs(self, batch: Batch, images: torch.Tensor) -> Outputs:
        """See `Teacher`."""
        return self.blank(batch.images, images)

    def blank(self, pixels_BHWC: torch.Tensor, images: torch.Tensor) -> Outputs:
        """See `Teacher`."""
        return self.forward(images if self._prepare is None else self._prepare(pixels_BHWC))

    def of_pixels(self, pixels_BHWC: torch.Tensor, *, batch: int | None = None) -> Outputs:
        """Logits (b, C) and embedding (b, D), float32, of (b, R, R, 3) uint8 pixels on the device, b <= batch.

        Convolution libraries choose algorithms by batch size, so a row's low bits depend on how many rows go with it,
        though not on what they are. A short batch is therefore filled up, with copies of its last image.

        Args:
            pixels_BHWC: of any strides.
            batch: another fixed size than the runner's own, to find out what it changes.
        """
        assert self._prepare is not None, "pixels become this network's own images"
        count, size = len(pixels_BHWC), batch or self.batch or len(pixels_BHWC)
        outputs = self.forward(self._prepare(_filled_up(pixels_BHWC, size)))
        assert outputs.embedding is not None, "a Network always gives its embedding"
        return Outputs(logits=outputs.logits.float()[:count], embedding=outputs.embedding[:count])

    def forward(self, images: torch.Tensor) -> Outputs:
        """The teacher's outputs for normalised (B, 3, H, W) float32 images, without gradient."""
        with torch.no_grad(), running_in(self.device, self._precision):
            if not self._rounded:
                _round_convolutions(self.network, images)
                self._rounded = True
            return self._forward(images)

    def map_shapes(self, resolution: int) -> dict[str, tuple[int, int, int]]:
        """(C, H, W) of its taps for images of this side."""
        with running_in(self.device, self._precision):
            return map_shapes(self.network, resolution)

    def head(self) -> Affine:
        """The classifier, weight (C, D) and bias (C,), float32 on the CPU; no bias is a bias of zeros."""
        return head_values(self.network)


def _filled_up(images_BHWC: torch.Tensor, size: int) -> torch.Tensor:
    lacking = size - len(images_BHWC)
    if lacking < 0:
        raise ValueError(f"{len(images_BHWC)} images do not fit a batch of {size}")
    if lacking == 0:
        return images_BHWC
    return torch.cat((images_BHWC, images_BHWC[-1:].expand(lacking, -1, -1, -1)))


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
