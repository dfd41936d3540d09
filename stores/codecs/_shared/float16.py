"""IEEE half precision, shared by the codecs that keep it."""

import numpy as np

GREATEST = 65504.0
_HALF_STEP = 2.0**-11  # relative: 11 bits of significand, rounded to nearest
_HALF_STEP_SUBNORMAL = 2.0**-25


def rounding_bound(rows: np.ndarray) -> np.ndarray:
    """The greatest error of rounding `rows` to float16, in float64: max(|x| / 2^11, 2^-25), for |x| <= 65504."""
    return np.maximum(np.abs(rows.astype(np.float64)) * _HALF_STEP, _HALF_STEP_SUBNORMAL)
