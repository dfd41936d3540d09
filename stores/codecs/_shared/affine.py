"""Eight bits a value between a row's least and greatest, shared by the codecs that keep them.

scale = max((greatest - least) / 255, 2^-126) and offset = least, float32, one of each a row;
q = round((x - offset) / scale) to nearest, ties to even, in 0..255; decoded x = q * scale + offset in float32.
The floor of scale is float32's least normal number: constant rows need no case of their own and decode exactly.
"""

from dataclasses import dataclass

import numpy as np

GREATEST = 2.0**126  # so that neither greatest - least nor 255 * scale overflows float32
_LEAST_SCALE = np.float32(2.0**-126)
_STEPS = np.float32(255)


@dataclass(frozen=True)
class AffineRows:
    """Encoded rows.

    Attributes:
        codes: (B, K) uint8.
        scales: (B,) float32.
        offsets: (B,) float32.
    """

    codes: np.ndarray
    scales: np.ndarray
    offsets: np.ndarray


def encode_affine(rows_BK: np.ndarray) -> AffineRows:
    """(B, K) float32 of at most `GREATEST` in size -> codes, scales, offsets."""
    scales, offsets = _steps(rows_BK)
    steps = (rows_BK - offsets[:, None]) / scales[:, None]
    np.rint(steps, out=steps)
    codes = np.minimum(steps, _STEPS, out=steps).astype(np.uint8)
    return AffineRows(codes, scales.astype("<f4", copy=False), offsets.astype("<f4", copy=False))


def decode_affine(rows: AffineRows) -> np.ndarray:
    """(B, K) float32."""
    decoded = rows.codes.astype(np.float32)
    decoded *= rows.scales[:, None]
    decoded += rows.offsets[:, None]
    return decoded


def affine_bound(rows_BK: np.ndarray) -> np.ndarray:
    """(B, K) float64: scale / 2, its part in 2^12 for rounding while encoding, and 2^-22 (|least| + |greatest|) for
    float32's rounding while decoding.
    """
    scales, offsets = _steps(rows_BK)
    sizes = np.abs(offsets.astype(np.float64)) + np.abs(rows_BK.max(axis=1).astype(np.float64))
    return np.broadcast_to((scales * (0.5 + 2.0**-13) + 2.0**-22 * sizes)[:, None], rows_BK.shape)


def _steps(rows_BK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    offsets = rows_BK.min(axis=1)
    return np.maximum((rows_BK.max(axis=1) - offsets) / _STEPS, _LEAST_SCALE), offsets
