"""Trainable parts between two networks: which shapes they meet, and how they start."""

import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager

from torch import nn

from pipeline.core.errors import ConfigError
from pipeline.devices.device_rng import initialising

MapShapes = Mapping[str, tuple[int, int, int]]


def seeded(seed: int, part: str) -> AbstractContextManager[None]:
    """A block in which PyTorch's initialisers are a function of (seed, part) alone; the global state comes back."""
    return initialising(seed, zlib.crc32(part.encode()))


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


def convolution(channels: int, width: int, kernel: int = 1) -> nn.Conv2d:
    """A convolution that keeps the resolution, without bias."""
    return nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
