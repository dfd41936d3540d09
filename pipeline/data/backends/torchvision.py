"""The reference backend: the decoder of `pipeline.data.decode` and torch's antialiased resize in a pool of threads.

Both release the GIL, so threads scale like processes without their start-up, copies and memory.
Several views of an image that come one after the other are cut out of one decoded image.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from pipeline.core.errors import BadImageError
from pipeline.data.backend import GRAY, BackendOptions, Source
from pipeline.data.backends._shared.pool import PooledBackend
from pipeline.data.decode import ImageRefusedError, decode_rgb
from pipeline.data.index import Index
from pipeline.data.plan import PlanRows


class TorchvisionBackend(PooledBackend):
    """See the module's docstring."""

    reads = "files"

    def __init__(self, source: Source, options: BackendOptions) -> None:
        self._index, self._options = source.index, options
        self._pool = ThreadPoolExecutor(options.num_threads, "decode", initializer=torch.set_num_threads, initargs=(1,))

    def pixel_recipe(self) -> dict[str, Any]:
        """See `Backend`."""
        return {
            "backend": self.name,
            "decode": "full",
            "decoder": "pillow",  # simplejpeg, where it helps, makes the same bits
            "resize": "bilinear, antialias, uint8",
            "copy": None,
        }

    def _decode(self, rows: PlanRows, images: torch.Tensor) -> list[int]:
        replaced, last_id, image = [], -1, None
        for position, sample_id in enumerate(rows.ids.tolist()):
            if sample_id != last_id:
                last_id, image = sample_id, self._read(sample_id)
            if image is None:
                images[position] = GRAY
                replaced.append(sample_id)
                continue
            images[position] = crop_resize_flip(
                image, rows.boxes[position], bool(rows.flips[position]), self._options.resolution
            )
        return replaced

    def _read(self, sample_id: int) -> torch.Tensor | None:
        try:
            return read_rgb(self._index, sample_id)
        except BadImageError:
            if self._options.on_bad_image == "stop":
                raise
            return None


def read_rgb(index: Index, sample_id: int) -> torch.Tensor:
    """One original as a (3, H, W) uint8 tensor (strided as H, W, 3), EXIF orientation ignored.

    Raises:
        BadImageError: unreadable, or of another size than the index says.
    """
    path = index.path_of(sample_id)
    try:
        image = decode_rgb(Path(path).read_bytes())
    except (OSError, ImageRefusedError) as error:
        raise BadImageError(sample_id, path, str(error)) from error
    row = int(index.rows_of(np.array([sample_id]))[0])
    expected = (int(index.heights[row]), int(index.widths[row]))
    if image.shape[:2] != expected:
        raise BadImageError(
            sample_id,
            path,
            f"it has {image.shape[1]} x {image.shape[0]} pixels, the index says {expected[1]} x {expected[0]}:"
            " the file has changed since the index was made",
        )
    return torch.from_numpy(image).permute(2, 0, 1)


def crop_resize_flip(image: torch.Tensor, box: np.ndarray, flip: bool, resolution: int) -> torch.Tensor:
    """The reference pixels of one plan row: (resolution, resolution, 3) uint8 from a (3, H, W) uint8 image."""
    top, left, height, width = (int(value) for value in box)
    crop = image[None, :, top : top + height, left : left + width].contiguous(memory_format=torch.channels_last)
    resized = interpolate(crop, (resolution, resolution), mode="bilinear", antialias=True)[0]
    return (resized.flip(2) if flip else resized).permute(1, 2, 0)
