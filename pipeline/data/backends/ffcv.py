"""FFCV: a resized copy of the data set in one mapped file, cropped by FFCV's C functions to the boxes of the plan.

One compiled loop, without the GIL, takes a slice of a request in each thread of a pool; there is no barrier between
requests, and no numba threading layer, whose `prange` loops may not run from two threads at once (train and val do).
Several views of a JPEG copy that come one after the other are cut out of one decoded image.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.core.errors import BadImageError, ConfigError, DataError
from pipeline.data.backend import GRAY, BackendOptions, Source
from pipeline.data.backends._shared.pool import PooledBackend
from pipeline.data.beton import JPEG, Beton, availability, ffcv_module, open_beton, read_beton_index
from pipeline.data.index import Index
from pipeline.data.plan import PlanRows

_ROUNDS = 100


class FfcvBackend(PooledBackend):
    """See the module's docstring. The first one of a process compiles the loop, about 1 s."""

    reads = "beton"

    def __init__(self, source: Source, options: BackendOptions) -> None:
        if source.beton is None:
            raise ConfigError("the ffcv backend reads a .beton file: make it with launch/prepare.py ffcv, pass --beton")
        self._beton, self._options = open_beton(source.beton), options
        _check_same_data(self._beton, source.index)
        self._file = np.memmap(source.beton, np.uint8, mode="r")
        self._loop = _compiled_loop()
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(options.num_threads, "decode", initializer=self._make_frame)

    @classmethod
    def missing(cls) -> str | None:
        """See `Backend`."""
        return availability()

    def pixel_recipe(self) -> dict[str, Any]:
        """See `Backend`."""
        decode = "full, fast DCT" if self._beton.recipe.encoding == "jpeg" else None
        return {"backend": self.name, "decode": decode, "resize": "area", "copy": asdict(self._beton.recipe)}

    def _make_frame(self) -> None:
        beton = self._beton
        areas = beton.widths.astype(np.int64) * beton.heights * (beton.modes == JPEG)
        self._local.frame = np.empty(3 * int(areas.max()), np.uint8)

    def _decode(self, rows: PlanRows, images: torch.Tensor) -> list[int]:
        beton = self._beton
        at = np.searchsorted(beton.index.ids, rows.ids)
        boxes = scale_boxes(
            rows.boxes, (beton.index.widths[at], beton.index.heights[at]), (beton.widths[at], beton.heights[at])
        )
        failed = np.zeros(len(at), np.int32)
        self._loop(
            beton.offsets[at].astype(np.int64) + self._file.ctypes.data,
            beton.sizes[at].astype(np.int64),
            beton.modes[at] == JPEG,
            np.stack((beton.heights[at], beton.widths[at]), axis=1).astype(np.int64),
            boxes,
            rows.flips,
            self._local.frame.ctypes.data,
            images.numpy(),
            failed,
        )
        return [self._replace(int(at[position]), images[position]) for position in np.flatnonzero(failed)]

    def _replace(self, row: int, image: torch.Tensor) -> int:
        sample_id = int(self._beton.index.ids[row])
        if self._options.on_bad_image == "stop":
            raise BadImageError(sample_id, f"{self._beton.path} row {row}", "FFCV's JPEG decoder refused its bytes")
        image.fill_(GRAY)
        return sample_id


def scale_boxes(
    boxes: np.ndarray, originals: tuple[np.ndarray, np.ndarray], copies: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Boxes in the pixels of the copies, (B, 4) int64: each edge rounded half to even, at least 1 pixel, inside.

    Args:
        boxes: (B, 4) top, left, height, width in the pixels of the originals.
        originals: (B,) widths, (B,) heights.
        copies: (B,) widths, (B,) heights.
    """
    top, left, height, width = boxes.astype(np.int64).T
    x, w = _scale_span(left, width, originals[0], copies[0].astype(np.int64))
    y, h = _scale_span(top, height, originals[1], copies[1].astype(np.int64))
    return np.stack((y, x, h, w), axis=1)


def native_loader(beton: Path, options: BackendOptions, seed: int) -> Generator[torch.Tensor, None, None]:
    """FFCV's own random pipeline over the same file: endless (B, R, R, 3) uint8 batches.

    One epoch of the Loader goes over the file many times: starting an epoch, which a data set of ImageNet's size does
    rarely, would weigh on a small one.

    The baseline of `benchmarks loader`: FFCV's Loader with its random crop and flip, `num_threads` workers, the same
    batch size, prefetch and page cache. The first batch pays for compilation; a batch is valid until `prefetch` more
    have been drawn. Sets torch's thread count for the whole process, as FFCV does.
    """
    loaders, decoders, transforms = ffcv_module("loader"), ffcv_module("fields.decoders"), ffcv_module("transforms")
    side = (options.resolution, options.resolution)
    image = [decoders.RandomResizedCropRGBImageDecoder(side), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    num_samples = len(read_beton_index(beton))
    loader = loaders.Loader(
        str(beton),
        batch_size=options.max_batch,
        num_workers=options.num_threads,
        os_cache=True,
        indices=np.tile(np.arange(num_samples), _ROUNDS),
        order=loaders.OrderOption.RANDOM,
        seed=seed,
        pipelines={"image": image, **dict.fromkeys(("label", "id", "width", "height"))},
        batches_ahead=options.prefetch,
    )
    while True:
        with contextlib.closing(iter(loader)) as epoch:  # ends its thread
            yield from (images for (images,) in epoch)


def _check_same_data(beton: Beton, index: Index) -> None:
    if beton.index.fingerprint != index.fingerprint:
        raise DataError(
            "the index and the .beton must be of the same data set.\n"
            f"  index:  fingerprint {index.fingerprint}\n"
            f"  .beton: fingerprint {beton.index.fingerprint} ({beton.path})\n"
            "Write the .beton again, or leave out the folder: training from a .beton needs none."
        )
    missing = np.setdiff1d(index.ids, beton.index.ids)
    if len(missing):
        raise DataError(
            f"{beton.path} holds {len(beton.index):,} samples and lacks {len(missing):,} of those asked for "
            f"(ids {missing[:5].tolist()}...): write it from the whole data set, or choose a smaller --subset"
        )


def _scale_span(
    start: np.ndarray, length: np.ndarray, original: np.ndarray, copy: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    ratio = copy / original
    first = np.minimum(np.rint(start * ratio).astype(np.int64), copy - 1)
    last = np.clip(np.rint((start + length) * ratio).astype(np.int64), first + 1, copy)
    return first, last - first


@functools.cache
def _compiled_loop() -> Callable[..., None]:
    """The loop over some rows of a request, compiled with FFCV's settings (no GIL) for these argument types.

    One per process: all data sets share it. Not cached on disk: addresses of FFCV's C functions are constants in it.
    Bytes come as addresses, not as arrays: FFCV's memory manager marks numba's one and only type of 1-D byte arrays as
    read-only when a Loader is made, after which nothing compiled for such arrays is found any more.
    """
    import numba

    compiler, library = ffcv_module("pipeline.compiler").Compiler, ffcv_module("libffcv")
    imdecode, resize, mirror = library.ctypes_imdecode, library.ctypes_resize, compiler.compile(_mirror)

    def loop(
        sources: np.ndarray,
        sizes: np.ndarray,
        is_jpeg: np.ndarray,
        shapes: np.ndarray,
        boxes: np.ndarray,
        flips: np.ndarray,
        frame: int,
        images: np.ndarray,
        failed: np.ndarray,
    ) -> None:
        for row in range(len(sources)):
            pixels, (height, width), image = sources[row], shapes[row], images[row]
            if is_jpeg[row]:
                if row > 0 and sources[row] == sources[row - 1]:  # another view of what is in the frame
                    failed[row] = failed[row - 1]
                else:
                    failed[row] = imdecode(
                        pixels, sizes[row], height, width, frame, height, width, 0, 0, 1, 1, False, False
                    )
                pixels = frame
            top, left, high, wide = boxes[row]
            side = image.shape[0]
            resize(0, pixels, height, width, top, top + high, left, left + wide, image.ctypes.data, side, side)
            if flips[row]:
                mirror(image)

    types = numba.types
    integer, integers, table = types.int64, types.int64[::1], types.int64[:, ::1]
    flags, pixels = types.boolean[::1], types.uint8[:, :, :, ::1]
    signature = types.void(integers, integers, flags, table, table, flags, integer, pixels, types.int32[::1])
    return compiler.compile(loop, signature)


def _mirror(image: np.ndarray) -> None:
    """Mirror (R, R, 3) left and right in place; compiled into the loop."""
    side = image.shape[1]
    for row in image:
        for column in range(side // 2):
            for channel in range(3):
                kept = row[column, channel]
                row[column, channel] = row[side - 1 - column, channel]
                row[side - 1 - column, channel] = kept
