"""What several methods share: where maps are compared, in which precision, and how trainable parts start."""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from pipeline.core.errors import ConfigError
from pipeline.core.rng import Stream, derive_seed

STAGES = ("stage1", "stage2", "stage3", "stage4")
_HALF = (torch.float16, torch.bfloat16)

MapShapes = Mapping[str, tuple[int, int, int]]


def in_float32(value: Tensor) -> Tensor:
    """Half precision becomes float32, the dtype of every loss; float64 stays (the tests of formulas use it)."""
    return value.float() if value.dtype in _HALF else value


def as_computed(value: Tensor) -> torch.autocast:
    """Autocast to the dtype that `value` has: a connector then runs in the precision of the student that it extends.

    In float32 the connectors of ReviewKD or SemCKD would cost more than a student in half precision.
    """
    return torch.autocast(value.device.type, dtype=value.dtype, enabled=value.dtype in _HALF)


def pool_larger(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool the larger of two (B, C, H, W) maps to the height and width of the smaller one."""
    if student.shape[2] > teacher.shape[2]:
        return adaptive_avg_pool2d(student, (teacher.shape[2], teacher.shape[3])), teacher
    if student.shape[2] < teacher.shape[2]:
        return student, adaptive_avg_pool2d(teacher, (student.shape[2], student.shape[3]))
    return student, teacher


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
