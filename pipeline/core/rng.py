"""Randomness as a function: Philox4x32-10, vectorised.

Source: Salmon et al., SC'11, "Parallel random numbers: as easy as 1, 2, 3".

A draw is `philox(counter, key)`: no state, no stream to rewind, the same bits on every machine. Keys are
(seed, stream), counters name what is drawn, for example (sample id, view, draw). Two uses of randomness differ in their
stream, so that equal seeds never give related numbers.
"""

import functools
from enum import IntEnum

import numpy as np

from pipeline.core.errors import ConfigError

_NUM_ROUNDS = 10
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
_BLOCK = 1 << 14  # counters per pass: the working set stays in the second-level cache


class Stream(IntEnum):
    """What a key is for. Values are part of every recorded result: append, never renumber."""

    VIEW = 1
    ORDER = 2
    INITIALISATION = 3
    STEP = 4
    SYNTHETIC = 5
    NEGATIVES = 6


def check_seed(name: str, seed: int) -> int:
    """Return `seed` if it is a valid key word, else refuse it by name."""
    if not 0 <= seed < 2**32:
        raise ConfigError(f"{name} must lie in 0..2^32-1, got {seed}")
    return seed


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox4x32.

    Args:
        counter: (N, 4) uint32, one row per draw.
        key: (seed, stream), two words of 32 bits.

    Returns:
        (N, 4) uint32 uniform words. Costs about 60 ns a row.
    """
    words = np.empty((len(counter), 4), np.uint32)
    for start in range(0, len(counter), _BLOCK):
        block = slice(start, start + _BLOCK)
        _rounds(counter[block], key, words[block])
    return words


def counters(words: tuple[np.ndarray | int, np.ndarray | int, np.ndarray | int, np.ndarray | int]) -> np.ndarray:
    """Broadcast four counter words to (N, 4) uint32."""
    columns = np.broadcast_arrays(*[np.asarray(word).astype(np.uint32) for word in words])
    return np.stack(columns, axis=-1).reshape(-1, 4)


def uniform(words: np.ndarray) -> np.ndarray:
    """Map uint32 words to float64 in [0, 1): exact, 2^-32 apart."""
    return words * 2.0**-32


def below(words: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Map uint32 words to integers in [0, bound): multiply-shift, bias under bound / 2^32."""
    return ((words.astype(np.uint64) * bounds.astype(np.uint64)) >> _SHIFT).astype(np.int64)


def derive_seed(seed: int, stream: Stream, *position: int) -> int:
    """A 64-bit seed for a library's own generator, as a function of (seed, stream, up to three integers)."""
    padded = (*position, 0, 0, 0)[:3]
    words = philox(counters((padded[0], padded[1], padded[2], len(position))), (seed, stream))[0]
    return int(words[0]) << 32 | int(words[1])


def _rounds(counter: np.ndarray, key: tuple[int, int], out: np.ndarray) -> None:
    # few and in-place operations: for the few hundred rows of a batch, numpy's calls cost more than their arithmetic
    even = np.ascontiguousarray(counter[:, 0::2].T).astype(np.uint64)  # words 0 and 2
    odd = np.ascontiguousarray(counter[:, 1::2].T).astype(np.uint64)  # words 1 and 3
    high = np.empty_like(even)
    for keys in _key_schedule(key):
        even *= _MULTIPLIERS
        np.right_shift(even, _SHIFT, out=high)
        even &= _LOW
        odd ^= high[::-1]
        odd ^= keys
        even, odd = odd, even[::-1]
    out[:, 0::2], out[:, 1::2] = even.T, odd.T


@functools.cache
def _key_schedule(key: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """(2, 1) uint64 key words of the ten rounds."""
    weyl = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint64)
    start = np.array([[key[0]], [key[1]]], np.uint64)
    return tuple((start + np.uint64(number) * weyl) & _LOW for number in range(_NUM_ROUNDS))
