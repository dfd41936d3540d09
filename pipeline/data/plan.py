"""The views: crop boxes and flips as a pure function of (policy, plan_seed, view, sample id, image size). numpy only.

Boxes are integers in the pixel frame of the original image, so one view serves every output resolution. Only operations
that IEEE 754 rounds exactly are used (+ - * / sqrt, rint, comparisons): the same plan on every machine, for ever.
"""

import zlib
from dataclasses import dataclass

import numpy as np

from pipeline.core.rng import check_seed
from pipeline.data.policy import Policy

_ROW = np.dtype([("id", "<i8"), ("view", "<i8"), ("box", "<i4", 4), ("flip", "u1")])  # what a checksum is of
PLAN_VERSION = 1  # raise it when any drawn number changes: stores of another version are refused


@dataclass(frozen=True)
class PlanRows:
    """What happens to each sample of a batch, one row a sample.

    Attributes:
        ids: (B,) int64 sample ids.
        views: (B,) int64 views.
        boxes: (B, 4) int32: top, left, height, width, in the original image's pixels.
        flips: (B,) bool: mirror left and right after resizing.

    A mixing policy will add its partner and weight here as further columns.
    """

    ids: np.ndarray
    views: np.ndarray
    boxes: np.ndarray
    flips: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, rows: slice | np.ndarray) -> "PlanRows":
        """Some of the rows, by position or by a mask."""
        return PlanRows(self.ids[rows], self.views[rows], self.boxes[rows], self.flips[rows])

    def crc(self) -> np.ndarray:
        """(B,) uint32: each row's CRC-32 over id and view (int64), box (4 int32), flip (a byte), little-endian."""
        rows = np.empty(len(self), _ROW)
        rows["id"], rows["view"], rows["box"], rows["flip"] = self.ids, self.views, self.boxes, self.flips
        packed: list[bytes] = rows.view(f"V{_ROW.itemsize}").tolist()
        return np.fromiter(map(zlib.crc32, packed), np.uint32, len(rows))


@dataclass(frozen=True)
class Plan:
    """The function from (sample ids, views, image sizes) to rows. Costs about 1 us a sample."""

    policy: Policy
    plan_seed: int

    def __post_init__(self) -> None:
        check_seed("plan_seed", self.plan_seed)

    def rows(self, ids: np.ndarray, views: np.ndarray, widths: np.ndarray, heights: np.ndarray) -> PlanRows:
        """Draw one row per sample; all arguments (B,) integers. Independent of what else is in the batch."""
        ids, views = ids.astype(np.int64), views.astype(np.int64)
        boxes, flips = self.policy.draw(ids, views, widths.astype(np.int64), heights.astype(np.int64), self.plan_seed)
        return PlanRows(ids, views, boxes.astype(np.int32), flips)


def views_of_epoch(epoch: int, ids: np.ndarray, num_views: int | None) -> np.ndarray:
    """The view of each sample in `epoch`: `epoch mod num_views`, or a new view every epoch where that is None."""
    return np.full(len(ids), epoch if num_views is None else epoch % num_views, np.int64)
