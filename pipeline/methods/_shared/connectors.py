"""Trainable parts between two networks: which shapes they meet, and how they start."""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from pipeline.core.errors import ConfigError
from pipeline.core.rng import Stream, derive_seed

MapShapes = Mapping[str, tuple[int, int, int]]


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


def convolution(channels: int, width: int, kernel: int = 1) -> nn.Conv2d:
    """A convolution that keeps the resolution, without bias."""
    return nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
