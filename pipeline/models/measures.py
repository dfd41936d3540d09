"""What methods are built from: the sizes of a network's maps, its classifier, the BatchNorms before its taps."""

import torch

from pipeline.models.network import Network
from pipeline.models.norms import norm_before

Affine = tuple[torch.Tensor, torch.Tensor]


def map_shapes(network: Network, resolution: int) -> dict[str, tuple[int, int, int]]:
    """(C, H, W) of the network's taps for images of this side; runs one blank image through it, where it has taps."""
    if not network.taps:
        return {}
    was_training, example = network.training, next(network.parameters())
    blank = torch.zeros(1, 3, resolution, resolution, device=example.device)
    with torch.no_grad():
        features = network.eval()(blank).features
    network.train(was_training)
    return {name: tuple(value.shape[1:]) for name, value in features.items()}


def head_values(network: Network) -> Affine:
    """The classifier, (C, D) and (C,) float32 on the CPU; zeros where it has no bias."""
    head = network.head
    bias = torch.zeros(head.out_features) if head.bias is None else head.bias.detach().float().cpu()
    return head.weight.detach().float().cpu(), bias


def norm_values(network: Network, tap: str) -> Affine:
    """Scale and shift, (C,) float32 on the CPU, of the BatchNorm before a ".pre" tap.

    Raises:
        ConfigError: no BatchNorm there.
    """
    layer = norm_before(network, tap)
    return layer.weight.detach().float().cpu(), layer.bias.detach().float().cpu()
