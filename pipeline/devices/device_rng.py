"""Philox4x32-10 on a device: the bits of `pipeline.core.rng`, where moving draws from the host would cost more."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.core.rng import Stream, check_seed, derive_seed

_NUM_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF


def philox_words(
    counter: tuple[torch.Tensor | int, torch.Tensor | int, torch.Tensor | int, torch.Tensor | int],
    key: tuple[int, int],
    *,
    device: torch.device,
) -> torch.Tensor:
    """(..., 4) int64 uniform words of 32 bits, for the four counter words broadcast to (...).

    Equal to `pipeline.core.rng.philox`. About 100 elementwise passes over half the words; nothing waits for the device.
    """
    words = torch.broadcast_tensors(*(_on(device, word) for word in counter))
    a, b, c, d = (word & _LOW for word in words)
    for number in range(_NUM_ROUNDS):
        first, second = ((key[word] + number * _WEYL[word]) & _LOW for word in (0, 1))
        # products of two 32-bit words wrap around in int64: their low 64 bits are what is wanted
        even, odd = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, c = _high(odd) ^ b ^ first, _high(even) ^ d ^ second
        b, d = odd & _LOW, even & _LOW
    return torch.stack((a, b, c, d), dim=-1)


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed the generators of the CPU and of `device`, from which layers such as dropout draw.

    What `torch.manual_seed` does beside this, for devices that are not there, costs a tenth of a step's launches, and
    keeps a call stack in memory each time.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


@contextmanager
def initialising(seed: int, *position: int) -> Iterator[None]:
    """Inside the block, PyTorch's initialisers are a function of (seed, position) alone; the global state comes back.

    Raises:
        ConfigError: a run's seed outside of its range.
    """
    drawn = derive_seed(check_seed("the run's seed", seed), Stream.INITIALISATION, *position)
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which would also reset the devices' generators
        torch.default_generator.manual_seed(drawn)
        yield


def below(words: torch.Tensor, bound: torch.Tensor | int) -> torch.Tensor:
    """Map words to integers in [0, bound), bound < 2^31: multiply-shift, bias under bound / 2^32."""
    return (words * bound) >> 32


def _high(product: torch.Tensor) -> torch.Tensor:
    return (product >> 32) & _LOW


def _on(device: torch.device, word: torch.Tensor | int) -> torch.Tensor:
    """A number is filled in on the device: a copy from the host's memory would wait for it."""
    return word if isinstance(word, torch.Tensor) else torch.full((), word, dtype=torch.int64, device=device)
