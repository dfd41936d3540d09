"""Average pooling of maps, with a backward pass that is deterministic on every device."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pipeline.methods._shared.precision import in_float32


def pool_to(maps: Tensor, height: int, width: int) -> Tensor:
    """`adaptive_avg_pool2d` of (B, C, H, W) maps, whose backward pass has a deterministic kernel on CUDA too.

    PyTorch's own adds its windows up with atomics there, and is refused by --deterministic. Sizes that divide are
    pooled with a stride; others (7 to 4) by two small matrices, which are made once.
    """
    rows, columns = maps.shape[2:]
    if (rows, columns) == (height, width):
        return maps
    if (height, width) == (1, 1):
        return maps.mean(dim=(2, 3), keepdim=True)
    if rows % height == 0 and columns % width == 0:
        return avg_pool2d(maps, (rows // height, columns // width))
    # the matrices' 1/3 is rounded to 8 bits in bfloat16; PyTorch's kernel sums in float32 too
    exact = in_float32(maps)
    windows = _windows if torch.compiler.is_compiling() else _kept_windows
    over_rows, over_columns = (
        windows(*sizes, maps.device, exact.dtype) for sizes in ((rows, height), (columns, width))
    )
    with torch.autocast(maps.device.type, enabled=False):
        return (over_rows @ exact @ over_columns.T).to(maps.dtype)


def pool_larger(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool the larger of two (B, C, H, W) maps to the height and width of the smaller one."""
    if student.shape[2] > teacher.shape[2]:
        return pool_to(student, teacher.shape[2], teacher.shape[3]), teacher
    if student.shape[2] < teacher.shape[2]:
        return student, pool_to(teacher, student.shape[2], student.shape[3])
    return student, teacher


def _windows(size: int, num: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(num, size): row i averages the places floor(i size / num) to ceil((i + 1) size / num) - 1, as PyTorch's does."""
    place, window = torch.arange(size, device=device), torch.arange(num, device=device)[:, None]
    first, end = window * size // num, ((window + 1) * size + num - 1) // num
    inside = (place >= first) & (place < end)
    return inside.to(dtype) / (end - first)


@lru_cache(maxsize=256)
def _kept_windows(size: int, num: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # made during an evaluation, they must serve training later on
        return _windows(size, num, device, dtype)
