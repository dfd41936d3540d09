"""IEEE half precision, shared by the codecs that keep it.

Bytes: the float32 value rounded to nearest, ties to even, 2 a number. Decoding: float32 of the stored value, exact.
Error: at most max(|x| / 2^11, 2^-25) of a value x. Values beyond 65504 and values that are not finite are refused.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from stores.codec import Codec, Field
from stores.codecs._shared.checks import check_rows

GREATEST = 65504.0
_HALF_STEP = 2.0**-11  # relative: 11 bits of significand, rounded to nearest
_HALF_STEP_SUBNORMAL = 2.0**-25


@dataclass(frozen=True)
class Float16Codec(Codec):
    """All numbers of a row as float16, in one dataset that has the source's name."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """See `Codec`."""
        return (Field(self.source, "<f2", (self.width,)),)

    def encode(self, rows_BK: np.ndarray) -> dict[str, np.ndarray]:
        """See `Codec`."""
        check_rows(rows_BK, codec=self.id, width=self.width, greatest=GREATEST)
        return {self.source: rows_BK.astype("<f2")}

    def decode(self, fields: dict[str, np.ndarray]) -> np.ndarray:
        """See `Codec`."""
        return fields[self.source].astype(np.float32)

    def decode_tensors(self, fields: dict[str, Any]) -> Any:
        """See `Codec`."""
        return fields[self.source].float()

    def bound(self, rows_BK: np.ndarray) -> np.ndarray:
        """See `Codec`."""
        return rounding_bound(rows_BK)


def rounding_bound(rows: np.ndarray) -> np.ndarray:
    """The greatest error of rounding `rows` to float16, in float64: max(|x| / 2^11, 2^-25), for |x| <= 65504."""
    return np.maximum(np.abs(rows.astype(np.float64)) * _HALF_STEP, _HALF_STEP_SUBNORMAL)
