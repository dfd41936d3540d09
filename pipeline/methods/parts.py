"""What several methods share: where maps are compared, in which precision, and how trainable parts start."""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from pipeline.core.errors import ConfigError
from pipeline.core.rng import Stream, derive_seed

STAGES = ("stage1", "stage2", "stage3", "stage4")
_HALF = (torch.float16, torch.bfloat16)

MapShapes = Mapping[str, tuple[int, int, int]]


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


@contextmanager
def seeded(seed: int, part: str) -> Iterator[None]:
    """Inside the block, PyTorch's initialisers are a function of (seed, part) alone; the global state comes back."""
    with torch.random.fork_rng(devices=[]):
        position = zlib.crc32(part.encode())
        # not torch.manual_seed, which would also reset the devices' generators
        torch.default_generator.manual_seed(derive_seed(seed, Stream.INITIALISATION, position))
        yield


def shapes_of(taps: tuple[str, ...], maps: MapShapes, *, whose: str) -> list[tuple[int, int, int]]:
    """(C, H, W) of each tap.

    Raises:
        ConfigError: a tap that is not there, or not a map.
    """
    for tap in taps:
        if len(maps.get(tap, ())) != 3:
            known = ", ".join(f"{name} {tuple(shape)}" for name, shape in maps.items()) or "none"
            raise ConfigError(f"the method compares maps (C, H, W): the {whose} has none at '{tap}'. It has: {known}.")
    return [maps[tap] for tap in taps]


def check_taps(name: str, taps: tuple[str, ...]) -> None:
    """Refuse an empty list of taps, and the same one twice."""
    if not taps or len(set(taps)) < len(taps):
        raise ConfigError(f"{name} must name one feature tap or more, each once, got {list(taps)}")


def convolution(channels: int, width: int, kernel: int = 1) -> nn.Conv2d:
    """A convolution that keeps the resolution, without bias."""
    return nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
