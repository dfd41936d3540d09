"""NVIDIA DALI, on the CPU or on the GPU: it reads the files, decodes only the plan's windows, resizes and mirrors.

A sample that DALI cannot read spoils its whole pipeline, and one whose header it cannot parse may even end the process
(2.4: the decoder's set-up leaves its frame while its worker threads still use it). So a file that is not as long as the
index says is first shown to the reference decoder and kept from DALI where that refuses it. What still fails costs its
pipeline: the request is decoded apart in ever smaller pieces until the culprits are alone, and a new pipeline goes on
with the requests behind. Pixels do not depend on what shares a batch, so none of this shows in the numbers.

Several views of an image cost as many decodes here: DALI decodes windows, and knows no whole image to share.
"""

import functools
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from pipeline.core.errors import BadImageError, MissingPackageError
from pipeline.data.backend import Backend, BackendOptions, DaliDecoding, Pixels, Source
from pipeline.data.backends._shared.dali_memory import ImageMemory
from pipeline.data.backends._shared.quarantine import Examined, Examiner, reference_error
from pipeline.data.index import Index
from pipeline.data.plan import PlanRows

# The versions of DALI that have passed `python -m benchmarks gpu`, with its JSON in benchmarks/results: whoever commits
# such a result adds its version, and from then on `--backend auto` takes DALI on CUDA. None has run there yet.
PROVEN_ON_CUDA: tuple[str, ...] = ()

_INSTALL = "pip install nvidia-dali-cuda130"
_PIECES = 8  # a spoiled request is cut into so many parts, and again: 256 rows with one culprit cost 4 pipelines
_NUM_ATTEMPTS = 10  # of the native random crop, as of the plan's policies


class DaliBackend(Backend):
    """See the module's docstring."""

    reads = "files"

    def __init__(self, source: Source, options: BackendOptions) -> None:
        _dali()
        self._index, self._options = source.index, options
        self._memory = ImageMemory(options, on_gpu=_device_id(options) is not None)
        self._examiner = Examiner(source.index, options.num_threads)

    @classmethod
    def missing(cls) -> str | None:
        """See `Backend`."""
        try:
            _dali()
        except MissingPackageError as error:
            return str(error)
        return None

    @classmethod
    def preference(cls, on_cuda: bool) -> int:
        """2: the fastest; 0 for a CUDA device where the installed version is not proven there."""
        return 2 if not on_cuda or (cls.missing() is None and _dali().__version__ in PROVEN_ON_CUDA) else 0

    def stream(self, requests: Iterable[PlanRows]) -> Generator[Pixels, None, None]:
        """See `Backend`. Requests are drawn in the consumer's thread."""
        feed = _Feed(self._examiner, iter(requests))
        while not feed.ended:
            yield from self._one_pipeline(feed)
        if feed.error is not None:
            raise feed.error

    def pixel_recipe(self) -> dict[str, Any]:
        """See `Backend`."""
        decoding = self._options.dali if _device_id(self._options) is not None else DaliDecoding("cpu")
        return {"backend": self.name, "resize": "linear, antialias, uint8", "copy": None, **decoding.to_recipe()}

    def close(self) -> None:
        """See `Backend`. Pipelines have ended with their streams."""
        self._examiner.close()

    def _one_pipeline(self, feed: "_Feed") -> Generator[Pixels, None, None]:
        """The pixels of all requests that one pipeline can serve; leaves the others in the feed."""
        run = _Run(feed, self._options, self._memory)
        try:
            while feed.waiting:
                if not len(feed.waiting[0].good):
                    yield self._completed(feed.waiting.popleft(), None)
                    continue
                try:
                    images = run.next()
                except _SpoiledError:
                    run.close()
                    yield self._decode_apart(feed.rewind())
                    return
                yield self._completed(*images)
        finally:
            run.close()

    def _completed(self, request: "Examined", decoded: torch.Tensor | None) -> Pixels:
        """The whole request from the images of its good rows: gray for the others, or the first one's error."""
        if not request.errors and decoded is not None:
            return Pixels(decoded)
        if self._options.on_bad_image == "stop":
            raise request.errors[min(request.errors)]
        images = self._memory.gray(len(request.rows))
        if decoded is not None:
            self._memory.put(decoded, images, request.good)
        return Pixels(images, tuple(request.errors[position].sample_id for position in sorted(request.errors)))

    def _decode_apart(self, request: "Examined") -> Pixels:
        parts: dict[int, torch.Tensor] = {}
        errors = dict(request.errors)
        pieces = deque(_cut(request.good))
        while pieces:
            positions = pieces.popleft()
            try:
                images = self._decode_alone(request.rows.part(positions))
            except _SpoiledError as spoiled:
                if len(positions) > 1:
                    pieces.extend(_cut(positions))
                else:
                    errors[int(positions[0])] = self._explain(int(request.rows.ids[positions[0]]), spoiled)
            else:
                parts.update(zip(positions.tolist(), images, strict=True))
        decoded = self._memory.stack([parts[position] for position in sorted(parts)]) if parts else None
        return self._completed(replace(request, good=np.array(sorted(parts), np.int64), errors=errors), decoded)

    def _decode_alone(self, rows: PlanRows) -> torch.Tensor:
        feed = _Feed(self._examiner, iter([rows]))
        run = _Run(feed, self._options, self._memory)
        try:
            if feed.waiting[0].errors:
                raise _SpoiledError(RuntimeError("the file has changed while it was read"))
            return run.next()[1]
        finally:
            run.close()

    def _explain(self, sample_id: int, spoiled: "_SpoiledError") -> BadImageError:
        """The reference decoder's words where it fails too: DALI's are a number."""
        ours = BadImageError(sample_id, self._index.path_of(sample_id), f"DALI: {spoiled.reason}")
        return reference_error(self._index, sample_id) or ours


class _SpoiledError(Exception):
    """The pipeline cannot be used any more; `reason` is DALI's, one line."""

    def __init__(self, error: RuntimeError) -> None:
        lines = [line.strip() for line in str(error).partition("encountered:")[2].splitlines() if line.strip()]
        self.reason = lines[0] if lines else str(error).splitlines()[0]
        super().__init__(self.reason)


class _Run:
    """One pipeline and the requests in it."""

    def __init__(self, feed: "_Feed", options: BackendOptions, memory: ImageMemory) -> None:
        self._feed, self._memory = feed, memory
        self._pipeline: Any = _replay_pipeline(feed, options)
        self._spoiled: RuntimeError | None = None
        feed.paused = False
        self._schedule()

    def next(self) -> tuple[Examined, torch.Tensor]:
        """The oldest waiting request and its good rows' images, after the next request has been handed to DALI.

        Raises:
            _SpoiledError: DALI failed at this request or at a later one.
        """
        if self._spoiled is not None:
            raise _SpoiledError(self._spoiled)
        try:
            images = self._memory.receive(self._pipeline)
        except RuntimeError as error:
            raise _SpoiledError(error) from error
        request = self._feed.waiting.popleft()
        self._schedule()
        return request, images

    def close(self) -> None:
        """End DALI's threads."""
        self._pipeline = None

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
        paused: a request without a good row waits; it and what follows are for after this pipeline.
    """

    def __init__(self, examiner: Examiner, requests: Iterator[PlanRows]) -> None:
        self._examiner, self._requests = examiner, requests
        self._exhausted = False
        self.waiting: deque[Examined] = deque()
        self.error: Exception | None = None
        self.paused = False

    @property
    def ended(self) -> bool:
        """Whether nothing waits and nothing will come."""
        return self._exhausted and not self.waiting

    def __call__(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Paths (B, W) uint8, window starts and shapes (B, 2) int32, flips (B,) int32."""
        request = None if self.paused else self._draw()
        if request is None:
            raise StopIteration
        self.waiting.append(request)
        if not len(request.good):
            self.paused = True
            raise StopIteration
        return _inputs(request)

    def rewind(self) -> Examined:
        """Take out the oldest waiting request; a new pipeline will draw the others again."""
        oldest = self.waiting.popleft()
        again = [request.rows for request in self.waiting]
        self._requests, self._exhausted = chain(again, self._requests), False
        self.waiting = deque()
        return oldest

    def _draw(self) -> Examined | None:
        try:
            return self._examiner.examine(next(self._requests))
        except StopIteration:
            self._exhausted = True
        except Exception as error:
            self._exhausted, self.error = True, error
        return None


def native_random_crop(index: Index, options: BackendOptions, seed: int) -> Generator[torch.Tensor, None, None]:
    """DALI's own usual training pipeline over the same files, for comparison: full batches, for ever.

    Its reader shuffles, its decoder draws the crops of RandomResizedCrop; threads, prefetch, resize and the form of the
    output are those of the backend. Yields (max_batch, R, R, 3) uint8.
    """
    pipeline = _native_pipeline([index.path_of(int(sample_id)) for sample_id in index.ids], options, seed)
    pipeline.schedule_run()
    while True:
        (images,) = pipeline.share_outputs()
        pixels = from_dlpack(images.as_tensor())
        pipeline.release_outputs()
        pipeline.schedule_run()
        yield pixels


def _replay_pipeline(feed: _Feed, options: BackendOptions) -> Any:
    fn, types, pipeline = _dali().fn, _dali().types, _empty_pipeline(options)
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
        pipeline.set_outputs(_resized(crops, flips, options))
    return pipeline


def _native_pipeline(files: list[str], options: BackendOptions, seed: int) -> Any:
    fn, pipeline = _dali().fn, _empty_pipeline(options, seed)
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
    return _dali().Pipeline(
        batch_size=options.max_batch,
        num_threads=options.num_threads,
        device_id=_device_id(options),
        seed=seed,
        prefetch_queue_depth=max(1, options.prefetch),
        exec_dynamic=True,
    )


def _decoding(options: BackendOptions) -> dict[str, Any]:
    """Decoder arguments: RGB, EXIF orientation ignored, and on the GPU what makes it agree with the reference."""
    common = {"output_type": _dali().types.RGB, "adjust_orientation": False}
    if _device_id(options) is None:
        return {"device": "cpu", **common}
    return {
        "device": "mixed",
        "jpeg_fancy_upsampling": True,  # as libjpeg does
        "hw_decoder_load": options.dali.hw_load,
        "affine": False,  # threads pinned to the first cores would meet those of the other local ranks there
        **common,
    }


def _resized(crops: Any, flips: Any, options: BackendOptions) -> Any:
    fn, linear, size = _dali().fn, _dali().types.INTERP_LINEAR, [options.resolution, options.resolution]
    resized = fn.resize(crops, size=size, interp_type=linear, antialias=True)
    return fn.flip(resized, horizontal=flips)


def _device_id(options: BackendOptions) -> int | None:
    device = torch.device(options.device)
    return None if device.type == "cpu" or options.dali.decoder == "cpu" else device.index or 0


def _inputs(request: Examined) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rows = request.rows.part(request.good)
    boxes = rows.boxes.astype(np.int32)
    starts, shapes = np.ascontiguousarray(boxes[:, :2]), np.ascontiguousarray(boxes[:, 2:])
    paths = _path_array([request.paths[position] for position in request.good])
    return paths, starts, shapes, rows.flips.astype(np.int32)


def _path_array(paths: list[bytes]) -> np.ndarray:
    """(B, W) uint8, padded on the left with slashes (///a/b is /a/b): costs DALI less than B arrays."""
    width = max(len(path) for path in paths)
    return np.frombuffer(b"".join(path.rjust(width, b"/") for path in paths), np.uint8).reshape(len(paths), width)


def _cut(positions: np.ndarray) -> list[np.ndarray]:
    return np.array_split(positions, min(_PIECES, len(positions))) if len(positions) else []


@functools.cache
def _dali() -> Any:
    """The package; imported when it is first asked for, so that it costs nothing where another backend reads."""
    try:
        from nvidia import dali
    except ImportError as error:
        raise MissingPackageError("NVIDIA DALI", _INSTALL) from error
    return dali
