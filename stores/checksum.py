"""The checksum that stands beside every row."""

import zlib
from collections.abc import Sequence

import numpy as np


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
    crcs = list(map(zlib.crc32, _row_bytes(prefix)))
    for payload in payloads:
        crcs = list(map(zlib.crc32, _row_bytes(payload), crcs))
    return np.array(crcs, "<u4")


def _row_bytes(array: np.ndarray) -> np.ndarray:
    """(B, bytes of a row) uint8 of the same memory; zlib takes its rows as they are."""
    contiguous = np.ascontiguousarray(array)
    row_bytes = int(np.prod(array.shape[1:], dtype=np.int64)) * array.itemsize
    return contiguous.reshape(-1).view(np.uint8).reshape(len(array), row_bytes)
