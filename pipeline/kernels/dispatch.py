"""Which form of a loss runs: Triton's on CUDA where Triton is installed, the fused torch form elsewhere."""

from importlib.util import find_spec

import torch

_TRITON = find_spec("triton") is not None
_TYPES = (torch.float32, torch.float16, torch.bfloat16)


def use_triton(*logits: torch.Tensor) -> bool:
    """Whether these logits go to a Triton kernel: on CUDA, of types that float32 arithmetic is right for."""
    return _TRITON and all(each.is_cuda and each.dtype in _TYPES for each in logits)
