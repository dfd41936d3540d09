"""From the pixels of a batch to a network's normalised images, the student's as the teacher's."""

from collections.abc import Callable

import torch

from pipeline.data.loader import normalise

Prepare = Callable[[torch.Tensor], torch.Tensor]


def preparation(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, memory_format: torch.memory_format
) -> Prepare:
    """The function from (B, H, W, 3) uint8 pixels to normalised images, with its constants on the device."""
    mean_311, std_311 = (torch.tensor(values)[:, None, None] for values in (mean, std))
    scale, offset = (1 / (255 * std_311)).to(device), (-mean_311 / std_311).to(device)
    return lambda images: normalise(images, scale, offset, memory_format)
