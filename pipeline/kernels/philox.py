"""Philox4x32-10 for every sample of a batch: in one Triton kernel on CUDA, in torch's operations elsewhere."""

import torch

from pipeline.devices.device_rng import philox_words
from pipeline.kernels.dispatch import triton_runs


def row_words(ids_B: torch.Tensor, epoch: int, num_blocks: int, draw: int, *, key: tuple[int, int]) -> torch.Tensor:
    """(B, 4 num_blocks) int64 words of 32 bits: those of the counters (id, epoch, block, draw), block by block.

    Equal to `pipeline.core.rng.philox` of the same counters, bit for bit, in either form. Nothing waits for the device.
    """
    if ids_B.is_cuda and triton_runs():
        from pipeline.kernels.triton_philox import triton_row_words  # optional package

        return triton_row_words(ids_B, epoch, num_blocks, draw, key=key)
    blocks = torch.arange(num_blocks, device=ids_B.device)
    return philox_words((ids_B[:, None], epoch, blocks, draw), key, device=ids_B.device).flatten(1)
