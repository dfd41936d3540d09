"""`philox.row_words` in Triton: one launch in place of about 120."""

import torch
import triton
import triton.language as tl

_MOST_COUNTERS = 512  # of a program


def triton_row_words(
    ids_B: torch.Tensor, epoch: int, num_blocks: int, draw: int, *, key: tuple[int, int]
) -> torch.Tensor:
    """`row_words`: a program for every row and piece of its blocks."""
    words = torch.empty(len(ids_B), 4 * num_blocks, dtype=torch.int64, device=ids_B.device)
    counters = min(_MOST_COUNTERS, triton.next_power_of_2(num_blocks))
    grid = len(ids_B), triton.cdiv(num_blocks, counters)
    with torch.cuda.device_of(ids_B):
        _kernel[grid](ids_B.contiguous(), words, num_blocks, epoch, draw, key[0] | key[1] << 32, COUNTERS=counters)
    return words


@triton.jit(do_not_specialize=["epoch", "draw", "seed"])  # else some epochs would compile it anew
def _kernel(ids, words, num_blocks, epoch, draw, seed, COUNTERS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1) * COUNTERS + tl.arange(0, COUNTERS)
    sample = tl.full([COUNTERS], tl.load(ids + row).to(tl.uint32), tl.uint32)
    at_epoch, at_draw = tl.full([COUNTERS], epoch, tl.uint32), tl.full([COUNTERS], draw, tl.uint32)
    a, b, c, d = tl.philox(seed, sample, at_epoch, block.to(tl.uint32), at_draw)
    # a, b, c, d of the first block, then of the second: written side by side
    mixed = tl.interleave(tl.interleave(a, c), tl.interleave(b, d))
    first = tl.program_id(1) * COUNTERS * 4
    at = first + tl.arange(0, 4 * COUNTERS)
    tl.store(words + row * num_blocks * 4 + at, mixed.to(tl.int64), mask=at < num_blocks * 4)
