"""Random area and aspect ratio, then a mirror: torchvision's RandomResizedCrop as a function."""

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.core.rng import Stream, below, counters, philox, uniform
from pipeline.data.policy import Policy

_FIRST_TRIES, _FURTHER_TRIES = range(2), range(2, 10)
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

    kind: ClassVar[str] = "random_resized_crop"
    area: tuple[float, float]
    ratio: tuple[float, float]
    flip: float

    def draw(
        self, ids: np.ndarray, views: np.ndarray, widths: np.ndarray, heights: np.ndarray, plan_seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Policy`. Two tries and the flip are drawn at once, eight more tries only where both failed."""
        words = _words(ids, views, np.array([*_FIRST_TRIES, _FLIP_DRAW]), plan_seed)
        boxes, found = self._first_fit(words[:, :-1], widths, heights)
        left = np.flatnonzero(~found)
        if len(left):
            more = _words(ids[left], views[left], np.array(_FURTHER_TRIES), plan_seed)
            boxes[left], found = self._first_fit(more, widths[left], heights[left])
            lost = left[~found]
            boxes[lost] = self._fallback(widths[lost], heights[lost])
        return boxes, uniform(words[:, -1, 0]) < self.flip

    def _first_fit(self, words: np.ndarray, widths: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first try of each sample that fits into its image: (B, 4) boxes, and (B,) whether there was one.

        Args:
            words: (B, D, 4) uint32: D tries, each with words for area, ratio, top and left.
            widths: (B,) pixels.
            heights: (B,) pixels.
        """
        low, high = self.area
        area = (widths * heights)[:, None] * (low + (high - low) * uniform(words[..., 0]))
        ratio = log_uniform(words[..., 1], ratio_table(*self.ratio))
        width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
        height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
        fits = (width > 0) & (width <= widths[:, None]) & (height > 0) & (height <= heights[:, None])
        rows = np.arange(len(words))
        first = fits.argmax(axis=1)
        width, height, words, found = width[rows, first], height[rows, first], words[rows, first], fits[rows, first]
        top = below(words[:, 2], np.where(found, heights - height + 1, 1))
        left = below(words[:, 3], np.where(found, widths - width + 1, 1))
        return np.stack((top, left, height, width), axis=1), found

    def _fallback(self, widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
        least, greatest = self.ratio
        shape = widths / heights
        width = np.where(shape > greatest, np.rint(heights * greatest), widths).astype(np.int64)
        height = np.where(shape < least, np.rint(widths / least), heights).astype(np.int64)
        width, height = np.clip(width, 1, widths), np.clip(height, 1, heights)
        return np.stack(((heights - height) // 2, (widths - width) // 2, height, width), axis=1)


@functools.cache
def ratio_table(least: float, greatest: float) -> np.ndarray:
    """(257,) float64: least * (greatest / least) ** (k / 256), from square roots and products only, hence frozen."""
    powers = np.ones((1 << _TABLE_BITS) + 1)
    root = greatest / least
    powers[-1] = root
    for bit in reversed(range(_TABLE_BITS)):
        root = float(np.sqrt(root))
        has_bit = (np.arange(1 << _TABLE_BITS) >> bit) & 1 == 1
        powers[:-1][has_bit] *= root
    table = least * powers
    table.flags.writeable = False  # shared by all callers
    return table


def log_uniform(words: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Map uint32 words to ratios, log-uniform over the table's range: float64."""
    cell = (words >> np.uint32(32 - _TABLE_BITS)).astype(np.int64)
    share = (words & np.uint32((1 << (32 - _TABLE_BITS)) - 1)) * 2.0 ** -(32 - _TABLE_BITS)
    return table[cell] + (table[cell + 1] - table[cell]) * share


def _words(ids: np.ndarray, views: np.ndarray, draws: np.ndarray, plan_seed: int) -> np.ndarray:
    """(B, D, 4) uint32: the words of D draws for each sample."""
    ids, views = ids[:, None], views[:, None]
    counter = counters((ids & 0xFFFFFFFF, ids >> 32, views, draws))
    return philox(counter, (plan_seed, Stream.VIEW)).reshape(len(ids), len(draws), 4)
