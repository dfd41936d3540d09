"""In which precision losses and connectors run."""

import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)


def in_float32(value: Tensor) -> Tensor:
    """Half precision becomes float32, the dtype of every loss; float64 stays (the tests of formulas use it)."""
    return value.float() if value.dtype in _HALF else value


def in_plain_float32(maps: Tensor) -> Tensor:
    """`in_float32` of (B, C, H, W) maps in just that order, contiguous: converted and laid out in one pass."""
    dtype = torch.float32 if maps.dtype in _HALF else maps.dtype
    return maps.to(dtype, memory_format=torch.contiguous_format)


def as_computed(value: Tensor) -> torch.autocast:
    """Autocast to the dtype that `value` has: a connector then runs in the precision of the student that it extends.

    In float32 the connectors of ReviewKD or SemCKD would cost more than a student in half precision.
    """
    return torch.autocast(value.device.type, dtype=value.dtype, enabled=value.dtype in _HALF)
