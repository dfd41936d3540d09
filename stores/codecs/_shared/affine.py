"""Eight bits a value between a row's least and greatest, shared by the codecs that keep them.

Bytes: `<source>_u8` (width,) |u1, `<source>_scale` () <f4, `<source>_offset` () <f4. width + 8 bytes a row.
scale = max((greatest - least) / 255, 2^-126) and offset = least, float32, one of each a row;
q = round((x - offset) / scale) to nearest, ties to even, in 0..255; decoded x = q * scale + offset in float32.
The floor of scale is float32's least normal number: constant rows need no case of their own and decode exactly.
Error: at most scale * (1/2 + 2^-13) + 2^-22 * (|least| + |greatest|).
Values beyond 2^126 and values that are not finite are refused.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from stores.codec import Codec, Field
from stores.codecs._shared.checks import check_rows

_GREATEST = 2.0**126  # so that neither greatest - least nor 255 * scale overflows float32
_LEAST_SCALE = np.float32(2.0**-126)
_STEPS = np.float32(255)


@dataclass(frozen=True)
class AffineCodec(Codec):
    """All numbers of a row in eight bits, and the row's scale and offset."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """See `Codec`."""
        codes, scale, offset = self._names
        return Field(codes, "|u1", (self.width,)), Field(scale, "<f4", ()), Field(offset, "<f4", ())

    def encode(self, rows_BK: np.ndarray) -> dict[str, np.ndarray]:
        """See `Codec`."""
        check_rows(rows_BK, codec=self.id, width=self.width, greatest=_GREATEST)
        scales, offsets = _steps(rows_BK)
        steps = (rows_BK - offsets[:, None]) / scales[:, None]
        np.rint(steps, out=steps)
        codes = np.minimum(steps, _STEPS, out=steps).astype(np.uint8)
        columns = (codes, scales.astype("<f4", copy=False), offsets.astype("<f4", copy=False))
        return dict(zip(self._names, columns, strict=True))

    def decode(self, fields: dict[str, np.ndarray]) -> np.ndarray:
        """See `Codec`."""
        codes, scales, offsets = (fields[name] for name in self._names)
        decoded = codes.astype(np.float32)
        decoded *= scales[:, None]
        decoded += offsets[:, None]
        return decoded

    def decode_tensors(self, fields: dict[str, Any]) -> Any:
        """See `Codec`."""
        codes, scales, offsets = (fields[name] for name in self._names)
        return codes.float() * scales.unsqueeze(1) + offsets.unsqueeze(1)

    def bound(self, rows_BK: np.ndarray) -> np.ndarray:
        """Half of scale, its part in 2^12 for rounding while encoding, and 2^-22 (|least| + |greatest|) for float32's
        rounding while decoding.
        """
        scales, offsets = _steps(rows_BK)
        sizes = np.abs(offsets.astype(np.float64)) + np.abs(rows_BK.max(axis=1).astype(np.float64))
        return np.broadcast_to((scales * (0.5 + 2.0**-13) + 2.0**-22 * sizes)[:, None], rows_BK.shape)

    @property
    def _names(self) -> tuple[str, str, str]:
        return f"{self.source}_u8", f"{self.source}_scale", f"{self.source}_offset"


def _steps(rows_BK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    offsets = rows_BK.min(axis=1)
    return np.maximum((rows_BK.max(axis=1) - offsets) / _STEPS, _LEAST_SCALE), offsets
