"""Randomness as a function: Philox4x32-10, vectorised.

Source: Salmon et al., SC'11, "Parallel random numbers: as easy as 1, 2, 3".

A draw is `philox(counter, key)`: no state, no stream to rewind, the same bits on every machine. Keys are
(seed, stream), counters name what is drawn, for example (sample id, view, draw). Two uses of randomness differ in their
stream, so that equal seeds never give related numbers.
"""

from enum import IntEnum

import numpy as np

from pipeline.core.errors import ConfigError

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
_BLOCK = 1 << 14  # counters per pass: the working set stays in the second-level cache


class Stream(IntEnum):
    """What a key is for. Values are part of every recorded result: append, never renumber."""

    VIEW = 1
    ORDER = 2
    INITIALISATION = 3
    STEP = 4
    SYNTHETIC = 5


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
    x0, x1, x2, x3 = (counter[:, column].astype(np.uint64) for column in range(4))
    key_0, key_1 = int(key[0]), int(key[1])
    for _ in range(10):
        product_0, product_1 = x0 * _MULTIPLIER_0, x2 * _MULTIPLIER_1
        x0 = (product_1 >> _SHIFT) ^ x1 ^ np.uint64(key_0)
        x2 = (product_0 >> _SHIFT) ^ x3 ^ np.uint64(key_1)
        x1, x3 = product_1 & _LOW, product_0 & _LOW
        key_0, key_1 = (key_0 + _WEYL_0) & 0xFFFFFFFF, (key_1 + _WEYL_1) & 0xFFFFFFFF
    for column, word in enumerate((x0, x1, x2, x3)):
        out[:, column] = word
