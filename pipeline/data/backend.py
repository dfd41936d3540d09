"""The backend contract: (sample ids, plan rows) in, pixels out, in order, with prefetch; and backends by name.

A backend is a file of `backends/` with `READS`, the images that it reads; `availability()`, why it cannot run here;
`open_backend(source, options)`; and, where it reads any, `preference(on_cuda)`: of those installed, the highest
is what `--backend auto` takes, and 0 is only taken when named.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch

from pipeline.config import Reading
from pipeline.core import parts
from pipeline.core.errors import ConfigError
from pipeline.data import backends
from pipeline.data.index import Index
from pipeline.data.plan import PlanRows
from stores.records import PixelRecipe

OnBadImage = Literal["stop", "gray"]
Reads = Literal["files", "beton", "nothing"]
GRAY = 128
_LIBJPEG, _NVJPEG = "region, libjpeg-turbo", "region, nvjpeg"  # as they stand in stores


@dataclass(frozen=True)
class Source:
    """Where pixels come from: an index, and for FFCV the file that holds a copy of them."""

    index: Index
    beton: Path | None = None


@dataclass(frozen=True)
class DaliDecoding:
    """Which of DALI's decoders make the pixels that a CUDA device wants; part of the pixel recipe.

    Attributes:
        decoder: "cpu" never touches the device; "mixed" is nvJPEG on it.
        hw_load: share of each batch that "mixed" gives to the device's JPEG engines.
    """

    decoder: Literal["cpu", "mixed"] = "cpu"
    hw_load: float = 0.0

    @classmethod
    def of(cls, reading: Reading) -> "DaliDecoding":
        """Of a resolved configuration; "auto" is left only where DALI is not used."""
        return cls("mixed" if reading.dali_decoder == "mixed" else "cpu", reading.dali_hw_decoder_load)

    @classmethod
    def from_recipe(cls, recipe: PixelRecipe) -> "DaliDecoding | None":
        """Of a store's pixel recipe; None where DALI did not make its pixels."""
        if recipe.backend != "dali":
            return None
        return cls("mixed" if recipe.decode == _NVJPEG else "cpu", recipe.hw_decoder_load or 0.0)

    def to_recipe(self) -> dict[str, Any]:
        """Its part of a pixel recipe."""
        if self.decoder == "cpu":
            return {"decode": _LIBJPEG}
        return {"decode": _NVJPEG, **({"hw_decoder_load": self.hw_load} if self.hw_load else {})}


@dataclass(frozen=True)
class BackendOptions:
    """How a backend works; none of these may change which samples, boxes or flips come out.

    Attributes:
        resolution: output side in pixels.
        num_threads: decoder threads this process may run.
        max_batch: the largest request that will come.
        device: "cpu", or a CUDA device on which pixels will be wanted ("cuda:0"); a backend may deliver on it.
        on_bad_image: stop with `BadImageError`, or deliver a gray image and report its id.
        prefetch: requests worked on ahead of the consumer.
        dali: how DALI decodes, where it is the backend.
    """

    resolution: int
    num_threads: int
    max_batch: int
    device: str = "cpu"
    on_bad_image: OnBadImage = "stop"
    prefetch: int = 3
    dali: DaliDecoding = field(default_factory=DaliDecoding)


@dataclass(frozen=True)
class Pixels:
    """One request's images.

    Attributes:
        images: (B, resolution, resolution, 3) uint8 RGB, contiguous; CPU (pinned where CUDA is the target) or CUDA, in
            the order of the device's copy stream (`devices.streams.to_device` makes it the current stream's). The
            consumer owns it: a backend never writes into it again.
        replaced: ids of images that could not be decoded and are gray here.
    """

    images: torch.Tensor
    replaced: tuple[int, ...] = field(default=())


class Backend(ABC):
    """Turns plan rows into pixels. Opened once per data set; used by one consumer thread."""

    @abstractmethod
    def stream(self, requests: Iterable[PlanRows]) -> Iterator[Pixels]:
        """Yield the pixels of each request, in order, working up to `prefetch` requests ahead.

        For each row: crop the box out of the original (unrotated) image, resize it to a square with antialiasing,
        mirror it where the row says so. Requests may be shorter than `max_batch`. `requests` is drawn lazily, from
        the consumer's thread or another. Closing the iterator early ends all work that it started.
        Neighbouring rows of one id (several views of an image) are decoded once by backends that decode whole images.

        Raises:
            BadImageError: with `on_bad_image` "stop", when the image's turn has come.
        """

    @abstractmethod
    def pixel_recipe(self) -> dict[str, Any]:
        """How pixels are made (backend, decoder, copy size and encoding, resize filter) as JSON."""

    @abstractmethod
    def close(self) -> None:
        """Release threads, files and pipelines. Calling it twice is harmless."""


def empty_images(num: int, options: BackendOptions) -> torch.Tensor:
    """An uninitialised (num, R, R, 3) uint8 batch, pinned where the target is CUDA."""
    shape = (num, options.resolution, options.resolution, 3)
    return torch.empty(shape, dtype=torch.uint8, pin_memory=options.device.startswith("cuda"))


def backend_names() -> list[str]:
    """The backends of the folder, installed or not."""
    return parts.names(backends)


def open_backend(name: str, source: Source, options: BackendOptions) -> Backend:
    """Open backend `name`.

    Raises:
        ConfigError: unknown name, or (MissingPackageError) its package is not installed.
    """
    backend: Backend = _module(name).open_backend(source, options)
    return backend


def missing(name: str) -> str | None:
    """Why backend `name` cannot run here, or None where it can."""
    reason: str | None = _module(name).availability()
    return reason


def check_backend(name: str, *, has_beton: bool) -> None:
    """Refuse a backend that is unknown, not installed, or cannot read what is there; before data is looked at.

    Raises:
        ConfigError: with the reason.
    """
    reason = missing(choose_backend(name, has_beton=has_beton))
    if reason is not None:
        raise ConfigError(reason)


def choose_backend(name: str, *, has_beton: bool, on_cuda: bool = False) -> str:
    """Resolve "auto" to the backend that its file prefers most for what is there, of those that are installed."""
    if name == "auto":
        fitting = _readers("beton" if has_beton else "files", on_cuda)
        return next((found for found in fitting if missing(found) is None), fitting[0])
    if has_beton and _module(name).READS != "beton":
        (reader, *_) = _readers("beton", on_cuda)
        raise ConfigError(f"--beton is read by the {reader} backend, not by '{name}': leave out one of the two flags")
    return name


def _readers(images: Reads, on_cuda: bool) -> list[str]:
    """What "auto" may choose to read `images`, the most preferred first."""
    files = parts.load_all(backends).items()
    wanted: dict[str, int] = {name: file.preference(on_cuda) for name, file in files if images == file.READS}
    return sorted(filter(wanted.__getitem__, wanted), key=wanted.__getitem__, reverse=True)


def _module(name: str) -> ModuleType:
    return parts.load(backends, "backend", name)
