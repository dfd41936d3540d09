"""NVIDIA DALI, on the CPU or on the GPU: it reads the files, decodes only the plan's windows, resizes and mirrors.

A sample that DALI cannot read spoils its whole pipeline, so a spoiled pipeline is thrown away, its oldest request is
decoded apart in ever smaller pieces until the culprits are alone, and a new pipeline goes on with the requests behind.
Pixels do not depend on what shares a batch, so none of this shows in the numbers.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from pipeline.core.errors import BadImageError, MissingPackageError
from pipeline.data.backends.base import GRAY, Backend, BackendOptions, Pixels, Source
from pipeline.data.backends.torchvision import read_rgb
from pipeline.data.index import Index
from pipeline.data.plan import PlanRows

try:
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import Pipeline

    _INSTALLED = True
except ImportError:
    _INSTALLED = False

_INSTALL = "pip install nvidia-dali-cuda130"
_PIECES = 8  # a spoiled request is cut into so many parts, and again: 256 rows with one culprit cost 4 pipelines
_NUM_ATTEMPTS = 10  # of the native random crop, as of the plan's policies


def availability() -> str | None:
    """None where DALI can be imported, else what to install."""
    return None if _INSTALLED else str(_missing())


def open_backend(source: Source, options: BackendOptions) -> Backend:
    """Open DALI over the files of `source.index`; on the GPU where `options.device` is one.

    Raises:
        MissingPackageError: DALI is not installed.
    """
    if not _INSTALLED:
        raise _missing()
    return DaliBackend(source.index, options)


class DaliBackend(Backend):
    """See the module's docstring.

    A file whose byte size is not the index's is checked with the reference decoder, since DALI decodes a window of a
    damaged or exchanged file without complaint as long as the window itself is there.
    """

    def __init__(self, index: Index, options: BackendOptions) -> None:
        self._index, self._options = index, options

    def stream(self, requests: Iterable[PlanRows]) -> Iterator[Pixels]:
        """See `Backend`. Requests are drawn in the consumer's thread."""
        feed = _Feed(self._index, iter(requests))
        run = _Run(feed, self._options)
        try:
            while feed.waiting:
                try:
                    decoded = run.next()
                except _SpoiledError:
                    run.close()
                    yield self._decode_apart(feed.rewind())
                    run = _Run(feed, self._options)
                else:
                    yield self._checked(decoded, {})
        finally:
            run.close()
        if feed.error is not None:
            raise feed.error

    def pixel_recipe(self) -> dict[str, Any]:
        """See `Backend`."""
        decoder = "libjpeg-turbo" if _device_id(self._options) is None else "nvjpeg"
        return {
            "backend": "dali",
            "decode": f"region, {decoder}",
            "resize": "linear, antialias, uint8",
            "copy": None,
        }

    def close(self) -> None:
        """See `Backend`. Pipelines live and die with their streams: nothing is left to release."""

    def _decode_apart(self, rows: PlanRows) -> Pixels:
        side = self._options.resolution
        images = torch.full((len(rows), side, side, 3), GRAY, dtype=torch.uint8, device=self._options.device)
        sizes = np.zeros(len(rows), np.int64)
        errors: dict[int, BadImageError] = {}
        pieces = deque(_cut(np.arange(len(rows)), _PIECES))
        while pieces:
            positions = pieces.popleft()
            try:
                decoded = self._decode_alone(_take(rows, positions))
            except _SpoiledError as spoiled:
                if len(positions) > 1:
                    pieces.extendleft(reversed(_cut(positions, _PIECES)))
                else:
                    errors[int(positions[0])] = self._explain(int(rows.ids[positions[0]]), spoiled)
                continue
            images[torch.from_numpy(positions)] = decoded.images
            sizes[positions] = decoded.sizes
        return self._checked(_Decoded(rows, images, sizes), errors)

    def _decode_alone(self, rows: PlanRows) -> "_Decoded":
        run = _Run(_Feed(self._index, iter([rows])), self._options)
        try:
            return run.next()
        finally:
            run.close()

    def _explain(self, sample_id: int, spoiled: "_SpoiledError") -> BadImageError:
        """The reference decoder's words where it fails too: DALI's are a number."""
        ours = BadImageError(sample_id, self._index.path_of(sample_id), f"DALI: {spoiled.reason}")
        return self._reference_error(sample_id) or ours

    def _reference_error(self, sample_id: int) -> BadImageError | None:
        try:
            read_rgb(self._index, sample_id)
        except BadImageError as error:
            return error
        return None

    def _checked(self, decoded: "_Decoded", errors: dict[int, BadImageError]) -> Pixels:
        """Look at the files whose size has changed; raise the first error, or make the bad ones gray."""
        expected = self._index.sizes[self._index.rows_of(decoded.rows.ids)]
        suspects = set(np.flatnonzero(decoded.sizes != expected).tolist()) - errors.keys()
        for position in suspects:
            error = self._reference_error(int(decoded.rows.ids[position]))
            if error is not None:
                errors[position] = error
        if errors and self._options.on_bad_image == "stop":
            raise errors[min(errors)]
        for position in errors:
            decoded.images[position] = GRAY
        return Pixels(decoded.images, tuple(errors[position].sample_id for position in sorted(errors)))


@dataclass(frozen=True)
class _Decoded:
    """A request, its images, and the byte sizes of the files as they were read, (B,) int64."""

    rows: PlanRows
    images: torch.Tensor
    sizes: np.ndarray


class _SpoiledError(Exception):
    """The pipeline cannot be used any more; `reason` is DALI's, one line."""

    def __init__(self, error: RuntimeError) -> None:
        lines = [line.strip() for line in str(error).partition("encountered:")[2].splitlines() if line.strip()]
        self.reason = lines[0] if lines else str(error).splitlines()[0]
        super().__init__(self.reason)


class _Run:
    """One pipeline and the requests in it."""

    def __init__(self, feed: "_Feed", options: BackendOptions) -> None:
        self._feed = feed
        self._gpu = None if _device_id(options) is None else torch.device(options.device)
        self._pipeline: Any = _replay_pipeline(feed, options)
        self._spoiled: RuntimeError | None = None
        self._schedule()

    def next(self) -> _Decoded:
        """The oldest waiting request's images, after the next request has been handed to DALI.

        Raises:
            _SpoiledError: DALI failed at this request or at a later one.
        """
        if self._spoiled is not None:
            raise _SpoiledError(self._spoiled)
        try:
            images, sizes = self._receive()
        except RuntimeError as error:
            raise _SpoiledError(error) from error
        rows = self._feed.waiting.popleft()
        self._schedule()
        return _Decoded(rows, images, sizes)

    def close(self) -> None:
        """End DALI's threads."""
        self._pipeline = None

    def _receive(self) -> tuple[torch.Tensor, np.ndarray]:
        stream = None if self._gpu is None else torch.cuda.current_stream(self._gpu)
        images, sizes = self._pipeline.share_outputs(stream)
        pixels = from_dlpack(images.as_tensor())  # DALI's dynamic executor never writes into it again
        if self._gpu is not None:
            pixels = pixels.clone()  # to torch's allocator, which knows about streams
        num_bytes = np.array(sizes.as_tensor())[:, 0]
        self._pipeline.release_outputs()
        return pixels, num_bytes

    def _schedule(self) -> None:
        """Hand the next request to DALI; the first time, as many as it works on at once."""
        try:
            self._pipeline.schedule_run()
        except RuntimeError as error:
            self._spoiled = error


class _Feed:
    """DALI's external source: draws requests and remembers them until they are delivered.

    Attributes:
        waiting: requests drawn and not delivered, the oldest first.
        error: what the requests' own iterator raised; theirs is the turn after all that wait.
    """

    def __init__(self, index: Index, requests: Iterator[PlanRows]) -> None:
        self._index, self._requests = index, requests
        self._root = os.fsencode(index.root.absolute()) + b"/"
        self.waiting: deque[PlanRows] = deque()
        self.error: Exception | None = None

    def __call__(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Paths (B, W) uint8, window starts and shapes (B, 2) int32, flips (B,) int32."""
        try:
            rows = next(self._requests)
            inputs = self._inputs(rows)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise StopIteration from error
        self.waiting.append(rows)
        return inputs

    def rewind(self) -> PlanRows:
        """Take out the oldest waiting request; a new pipeline will draw the others again."""
        oldest = self.waiting.popleft()
        self._requests = chain(self.waiting, self._requests)
        self.waiting = deque()
        return oldest

    def _inputs(self, rows: PlanRows) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        boxes = rows.boxes.astype(np.int32)
        starts, shapes = np.ascontiguousarray(boxes[:, :2]), np.ascontiguousarray(boxes[:, 2:])
        return self._paths(rows.ids), starts, shapes, rows.flips.astype(np.int32)

    def _paths(self, ids: np.ndarray) -> np.ndarray:
        # One array for the batch, padded on the left with slashes (///a/b is /a/b), costs DALI less than B arrays.
        index, positions = self._index, self._index.rows_of(ids)
        ends = zip(index.path_ends[positions], index.path_ends[positions + 1], strict=True)
        paths = [self._root + index.path_bytes[start:end].tobytes() for start, end in ends]
        width = max(len(path) for path in paths)
        return np.frombuffer(b"".join(path.rjust(width, b"/") for path in paths), np.uint8).reshape(len(ids), width)


def native_random_crop(index: Index, options: BackendOptions, seed: int) -> Iterator[torch.Tensor]:
    """DALI's own usual training pipeline over the same files, for comparison: full batches, for ever.

    Its reader shuffles, its decoder draws the crops of RandomResizedCrop; threads, prefetch, resize and the form of the
    output are those of the backend. Yields (max_batch, R, R, 3) uint8.
    """
    if not _INSTALLED:
        raise _missing()
    pipeline = _native_pipeline([index.path_of(int(sample_id)) for sample_id in index.ids], options, seed)
    pipeline.schedule_run()
    while True:
        (images,) = pipeline.share_outputs()
        pixels = from_dlpack(images.as_tensor())
        pipeline.release_outputs()
        pipeline.schedule_run()
        yield pixels


def _replay_pipeline(feed: _Feed, options: BackendOptions) -> Any:
    pipeline = _empty_pipeline(options)
    with pipeline:
        paths, starts, shapes, flips = fn.external_source(
            source=feed,
            num_outputs=4,
            batch=True,
            dtype=[types.UINT8, types.INT32, types.INT32, types.INT32],
            ndim=[1, 1, 1, 0],
        )
        # plain reads: a mapped file that shrinks or whose server fails kills the process with SIGBUS
        files = fn.io.file.read(paths, dont_use_mmap=True)
        crops = fn.decoders.image_slice(files, start=starts, shape=shapes, axis_names="HW", **_decoding(options))
        pipeline.set_outputs(_resized(crops, flips, options), files.shape())
    return pipeline


def _native_pipeline(files: list[str], options: BackendOptions, seed: int) -> Any:
    pipeline = _empty_pipeline(options, seed)
    with pipeline:
        encoded, _ = fn.readers.file(files=files, random_shuffle=True, name="files")
        crops = fn.decoders.image_random_crop(
            encoded,
            random_area=(0.08, 1.0),
            random_aspect_ratio=(3 / 4, 4 / 3),
            num_attempts=_NUM_ATTEMPTS,
            **_decoding(options),
        )
        pipeline.set_outputs(_resized(crops, fn.random.coin_flip(), options))
    return pipeline


def _empty_pipeline(options: BackendOptions, seed: int = 0) -> Any:
    return Pipeline(
        batch_size=options.max_batch,
        num_threads=options.num_threads,
        device_id=_device_id(options),
        seed=seed,
        prefetch_queue_depth=max(1, options.prefetch),
        exec_dynamic=True,
    )


def _decoding(options: BackendOptions) -> dict[str, Any]:
    """Decoder arguments: RGB, EXIF orientation ignored, and on the GPU what makes it agree with the reference."""
    common = {"output_type": types.RGB, "adjust_orientation": False}
    if _device_id(options) is None:
        return {"device": "cpu", **common}
    return {
        "device": "mixed",
        "jpeg_fancy_upsampling": True,  # as libjpeg does
        "hw_decoder_load": 0.0,  # else the place in the batch decides which of two decoders makes the pixels
        "affine": False,  # threads pinned to the first cores would meet those of the other local ranks there
        **common,
    }


def _resized(crops: Any, flips: Any, options: BackendOptions) -> Any:
    size = [options.resolution, options.resolution]
    resized = fn.resize(crops, size=size, interp_type=types.INTERP_LINEAR, antialias=True)
    return fn.flip(resized, horizontal=flips)


def _device_id(options: BackendOptions) -> int | None:
    device = torch.device(options.device)
    return None if device.type == "cpu" else device.index or 0


def _take(rows: PlanRows, positions: np.ndarray) -> PlanRows:
    return PlanRows(**{column.name: getattr(rows, column.name)[positions] for column in fields(rows)})


def _cut(positions: np.ndarray, num_pieces: int) -> list[np.ndarray]:
    return np.array_split(positions, min(num_pieces, len(positions)))


def _missing() -> MissingPackageError:
    return MissingPackageError("NVIDIA DALI", _INSTALL)
