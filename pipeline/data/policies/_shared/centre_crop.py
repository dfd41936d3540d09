"""The evaluation view: resize the shorter side, cut the centre; nothing is drawn."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.data.policy import Policy


@dataclass(frozen=True)
class CentreCrop(Policy):
    """The centre square whose side is `share` of the shorter side (224 / 256 in the usual ImageNet evaluation).

    "Resize to 256, crop 224" and "crop 224/256 of the original, resize to 224" look at the same pixels at the same
    scale; they differ by the rounding of the box to whole pixels.
    """

    kind: ClassVar[str] = "centre_crop"
    share: float

    def draw(
        self, ids: np.ndarray, views: np.ndarray, widths: np.ndarray, heights: np.ndarray, plan_seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Policy`."""
        side = np.maximum(np.rint(np.minimum(widths, heights) * self.share).astype(np.int64), 1)
        boxes = np.stack(((heights - side) // 2, (widths - side) // 2, side, side), axis=1)
        return boxes, np.zeros(len(ids), bool)
