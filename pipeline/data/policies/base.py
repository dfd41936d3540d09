"""What an augmentation policy is."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np


class Policy(ABC):
    """Draws boxes and flips. A frozen dataclass whose fields are JSON values; its JSON stands in every store."""

    @abstractmethod
    def draw(
        self, ids: np.ndarray, views: np.ndarray, widths: np.ndarray, heights: np.ndarray, plan_seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (B, 4) integer boxes (top, left, height, width) inside the images, and (B,) bool flips.

        All arguments are (B,) int64. A row depends on its own sample only.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The JSON object from which `registry.from_json` rebuilds an equal policy."""
