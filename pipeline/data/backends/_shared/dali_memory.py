"""From DALI's memory to torch's.

On the GPU, DALI's own buffers are not handed out: they are ordered on DALI's stream, which knows nothing of the steps
that read them, and go back to its pool for a later batch. A copy that torch makes on its own stream may come too late:
the batch would show later pixels under its own labels. So DALI itself copies them to memory of torch, on the copy
stream, and lets its stream wait for that copy before it uses the buffer again (`copy_to_external`, DALI 2.4).
"""

from contextlib import nullcontext
from ctypes import c_void_p
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from pipeline.data.backend import GRAY, BackendOptions, empty_images
from pipeline.devices.streams import copy_stream


class ImageMemory:
    """Where images are put: on the CPU, or on the GPU in the order of its copy stream."""

    def __init__(self, options: BackendOptions, *, on_gpu: bool) -> None:
        self._options, self._device = options, torch.device(options.device)
        self._stream = copy_stream(self._device) if on_gpu else None

    def receive(self, pipeline: Any) -> torch.Tensor:
        """The next output of `pipeline`, (B, R, R, 3) uint8."""
        if self._stream is None:
            (images,) = pipeline.share_outputs()
            pixels = from_dlpack(images.as_tensor())  # DALI's dynamic executor never writes into it again
            if self._device.type == "cuda":  # pinned, so that it is copied beside the step
                pixels = self._empty(len(pixels)).copy_(pixels)
        else:
            (images,) = pipeline.share_outputs(self._stream.handle)
            pixels = self._empty(len(images))
            where, order = c_void_p(pixels.data_ptr()), c_void_p(self._stream.handle)
            images.as_tensor().copy_to_external(where, order, non_blocking=True)
        pipeline.release_outputs()
        return pixels

    def gray(self, num: int) -> torch.Tensor:
        """As many gray images."""
        images = self._empty(num)
        with self._used():
            return images.fill_(GRAY)

    def put(self, images: torch.Tensor, target: torch.Tensor, positions: np.ndarray) -> None:
        """Copy images to their positions in `target`."""
        with self._used():
            target[torch.from_numpy(positions)] = images

    def stack(self, images: list[torch.Tensor]) -> torch.Tensor:
        """A batch of single images."""
        with self._used():
            return torch.stack(images)

    def _empty(self, num: int) -> torch.Tensor:
        if self._stream is None:
            return empty_images(num, self._options)
        side = self._options.resolution
        with self._stream.used():
            return torch.empty((num, side, side, 3), dtype=torch.uint8, device=self._device)

    def _used(self) -> Any:
        return nullcontext() if self._stream is None else self._stream.used()
