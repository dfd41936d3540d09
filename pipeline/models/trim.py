"""Cutting a network's tail: the layers on which a tap does not depend."""

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from pipeline.models.network import Network


def cut_tail(network: Network, tap: str, resolution: int) -> tuple[str, ...]:
    """Make every module on which `tap` does not depend the identity, in place; returns their paths in `network.model`.

    For a student that is read at `tap` alone: ShuffleNetV2's conv5, which comes after the last stage, would get no
    gradient, which DDP refuses, and would be computed and decayed for nothing. A module that cannot be left out (the
    next one insists on its shape) stays and is frozen. A function of the architecture: random states, running
    statistics and gradients stay as they are.

    Args:
        network: classifier or not; `tap` is one of its taps.
        tap: the only output that is read.
        resolution: side of an image that the network takes; one is run through it.

    Raises:
        ConfigError: the network does not take such images.
    """
    was_training, example = network.training, next(network.parameters())
    # noise, since a fresh network answers a blank image with zeros everywhere
    noise = torch.randn(1, 3, resolution, resolution, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    image = noise.to(example)
    network.eval()
    try:
        expected, unreached = _reach(network, tap, image)
        paths = list(_outermost(network.model, {id(parameter) for parameter in unreached}))
        # the last one first: each is the identity only where those after it take its input's shape
        cut = tuple(path for path in paths[::-1] if _cut(network, path, tap, image, expected))
    finally:
        network.train(was_training)
    for parameter in unreached:
        parameter.requires_grad_(False)
    return cut


def _reach(network: Network, tap: str, image: Tensor) -> tuple[Tensor, list[nn.Parameter]]:
    """The tap's value, and the trainable parameters that it does not depend on."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with torch.inference_mode(False), torch.enable_grad():
        value = network(image).features[tap]
        if not value.requires_grad:
            return value, trainable
        gradients = torch.autograd.grad(value.sum(), trainable, allow_unused=True)
    found = zip(trainable, gradients, strict=True)
    return value.detach(), [parameter for parameter, gradient in found if gradient is None]


def _outermost(module: nn.Module, unreached: Collection[int], prefix: str = "") -> Iterator[str]:
    """Paths of the largest modules with nothing but unreached parameters, and with no tap inside."""
    for name, child in module.named_children():
        parameters = list(child.parameters())
        is_unread = bool(parameters) and all(id(parameter) in unreached for parameter in parameters)
        if is_unread and not any(part._forward_hooks or part._forward_pre_hooks for part in child.modules()):
            yield prefix + name
        else:
            yield from _outermost(child, unreached, f"{prefix}{name}.")


def _cut(network: Network, path: str, tap: str, image: Tensor, expected: Tensor) -> bool:
    """Whether the network gives the same tap with the identity at `path`, where the identity then stays."""
    module = network.model.get_submodule(path)
    network.model.set_submodule(path, nn.Identity())
    try:
        with torch.no_grad():
            found = network(image).features[tap]
        if torch.allclose(found, expected, equal_nan=True):
            return True
    except Exception:  # whatever the author of a network raises at a shape
        pass
    network.model.set_submodule(path, module)
    return False
