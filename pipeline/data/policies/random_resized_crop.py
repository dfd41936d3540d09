"""Random area and aspect ratio, then a mirror: torchvision's RandomResizedCrop as a function."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.core.rng import Stream, below, counters, philox, uniform
from pipeline.data.policies.base import Policy

KIND = "random_resized_crop"
_NUM_TRIES = 10
_FLIP_DRAW = 1 << 16
_TABLE_BITS = 8  # 257 log-spaced ratios; linear interpolation between them is within 6.4e-7 of exp, relative


@dataclass(frozen=True)
class RandomResizedCrop(Policy):
    """A box of `area` times the image's area and an aspect ratio log-uniform in `ratio`, ten tries, else the centre.

    The distribution is that of torchvision.transforms.RandomResizedCrop.get_params, fallback included.

    Attributes:
        area: least and greatest share of the image's area.
        ratio: least and greatest width over height.
        flip: probability of a mirror.
    """

    area: tuple[float, float]
    ratio: tuple[float, float]
    flip: float

    def to_json(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"kind": KIND, **{key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "RandomResizedCrop":
        """Inverse of `to_json`, without its `kind`."""
        return cls(tuple(fields["area"]), tuple(fields["ratio"]), fields["flip"])

    def draw(
        self, ids: np.ndarray, views: np.ndarray, widths: np.ndarray, heights: np.ndarray, plan_seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Policy`. A further try is drawn only where the one before failed."""
        boxes = self._fallback(widths, heights)
        table = ratio_table(*self.ratio)
        left = np.arange(len(ids))
        for attempt in range(_NUM_TRIES):
            words = _words(ids[left], views[left], attempt, plan_seed)
            tried, fits = self._attempt(words, widths[left], heights[left], table)
            boxes[left[fits]] = tried[fits]
            left = left[~fits]
            if not len(left):
                break
        return boxes, uniform(_words(ids, views, _FLIP_DRAW, plan_seed)[:, 0]) < self.flip

    def _attempt(
        self, words: np.ndarray, widths: np.ndarray, heights: np.ndarray, table: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.area
        area = (widths * heights) * (low + (high - low) * uniform(words[:, 0]))
        ratio = log_uniform(words[:, 1], table)
        width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
        height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
        fits = (width > 0) & (width <= widths) & (height > 0) & (height <= heights)
        top = below(words[:, 2], np.where(fits, heights - height + 1, 1))
        left = below(words[:, 3], np.where(fits, widths - width + 1, 1))
        return np.stack((top, left, height, width), axis=1), fits

    def _fallback(self, widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
        least, greatest = self.ratio
        shape = widths / heights
        width = np.where(shape > greatest, np.rint(heights * greatest), widths).astype(np.int64)
        height = np.where(shape < least, np.rint(widths / least), heights).astype(np.int64)
        width, height = np.clip(width, 1, widths), np.clip(height, 1, heights)
        return np.stack(((heights - height) // 2, (widths - width) // 2, height, width), axis=1)


def ratio_table(least: float, greatest: float) -> np.ndarray:
    """(257,) float64: least * (greatest / least) ** (k / 256), from square roots and products only, hence frozen."""
    powers = np.ones((1 << _TABLE_BITS) + 1)
    root = greatest / least
    powers[-1] = root
    for bit in reversed(range(_TABLE_BITS)):
        root = float(np.sqrt(root))
        has_bit = (np.arange(1 << _TABLE_BITS) >> bit) & 1 == 1
        powers[:-1][has_bit] *= root
    return least * powers


def log_uniform(words: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Map uint32 words to ratios, log-uniform over the table's range: float64."""
    cell = (words >> np.uint32(32 - _TABLE_BITS)).astype(np.int64)
    share = (words & np.uint32((1 << (32 - _TABLE_BITS)) - 1)) * 2.0 ** -(32 - _TABLE_BITS)
    return table[cell] + (table[cell + 1] - table[cell]) * share


def _words(ids: np.ndarray, views: np.ndarray, draw: int, plan_seed: int) -> np.ndarray:
    return philox(counters((ids & 0xFFFFFFFF, ids >> 32, views, draw)), (plan_seed, Stream.VIEW))
