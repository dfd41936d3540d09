"""Pixels without files, for tests and benchmarks: a ramp that depends on id, box and flip, so a wrong plan shows."""

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.core.rng import Stream, below, counters, philox
from pipeline.data.backend import Backend, BackendOptions, Pixels, Source, empty_images
from pipeline.data.index import Index, whole_index
from pipeline.data.plan import PlanRows


class SyntheticBackend(Backend):
    """See the module's docstring."""

    reads = "nothing"

    def __init__(self, source: Source, options: BackendOptions) -> None:
        self._options = options

    def stream(self, requests: Iterable[PlanRows]) -> Generator[Pixels, None, None]:
        """See `Backend`."""
        for rows in requests:
            yield Pixels(self._ramps(rows))

    def pixel_recipe(self) -> dict[str, Any]:
        """See `Backend`."""
        return {"backend": self.name, "decode": "ramp", "resize": None, "copy": None}

    def close(self) -> None:
        """See `Backend`."""

    def _ramps(self, rows: PlanRows) -> torch.Tensor:
        side = self._options.resolution
        top, left, height, width = torch.from_numpy(rows.boxes.astype(np.int64)).unbind(1)
        position = torch.arange(side)
        down = top[:, None] + position * height[:, None] // side
        across = left[:, None] + position * width[:, None] // side
        across = torch.where(torch.from_numpy(rows.flips)[:, None], across.flip(1), across)
        colour = torch.from_numpy(rows.ids)[:, None] * torch.tensor([37, 101, 197])
        images = empty_images(len(rows), self._options)
        torch.add(
            down.to(torch.uint8)[:, :, None, None],
            (across[:, :, None] + colour[:, None, :]).to(torch.uint8)[:, None, :, :],
            out=images,
        )
        return images


def synthetic_index(num_samples: int, num_classes: int) -> Index:
    """An index of `num_samples` images that exist nowhere, sizes between 64 and 1,087 pixels, sorted by class."""
    ids = np.arange(num_samples, dtype=np.int64)
    words = philox(counters((ids, 0, 0, 0)), (0, Stream.SYNTHETIC))
    span = np.full(num_samples, 1024)
    labels = (ids * num_classes // num_samples).astype(np.int32)
    widths, heights = ((64 + below(words[:, side], span)).astype(np.int32) for side in (0, 1))
    classes = tuple(f"class_{label:05d}" for label in range(num_classes))
    return whole_index(Path(), classes, labels=labels, widths=widths, heights=heights)
