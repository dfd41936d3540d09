"""Is replay free? Each backend on a given plan, against its library's own random pipeline on the same files.

Both streams of a pair are open and endless; a window of one is timed while the other stands still, in turn. The first
batches of a window, decoded while the stream stood still, are not counted.
"""

import itertools
import tempfile
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.pairs import Pairs, alternate, window_rate
from pipeline.core.cpu import usable_cpus
from pipeline.core.errors import ConfigError
from pipeline.data.backend import BackendOptions, Source, missing, open_backend
from pipeline.data.backends.synthetic import synthetic_index
from pipeline.data.index import Index, load_index
from pipeline.data.loader import Loader
from pipeline.data.order import Order, permutation
from pipeline.data.plan import Plan, PlanRows
from pipeline.data.policy import get_policy
from pipeline.data.scan import scan_folder

IMAGENET_SAMPLES = 1_281_167


@dataclass(frozen=True)
class LoaderSettings:
    """How the loaders are measured.

    Attributes:
        data: folder with a folder of images per class.
        resolution: output side in pixels.
        batch: images per batch.
        threads: decoder threads, or worker processes for a DataLoader; None for all cores.
        batches: batches in a timed window.
        repeats: pairs.
        max_side: longer side of the FFCV copies.
    """

    data: Path
    resolution: int = 224
    batch: int = 64
    threads: int | None = None
    batches: int = 30
    repeats: int = 5
    max_side: int = 500


def measure_loaders(settings: LoaderSettings, backends: list[str], work: Path, say: Any) -> list[Pairs]:
    """Replayed against native, for each of `backends` ("dali", "ffcv-raw", "ffcv-jpeg", "torchvision")."""
    index, _ = scan_folder(settings.data)
    if len(index) < settings.batch:
        raise ConfigError(f"--batch must be at most the {len(index):,} images of {settings.data}, got {settings.batch}")
    results = []
    for name in backends:
        backend, _, encoding = name.partition("-")
        reason = missing(backend)
        if reason is not None:
            say(f"{name}: left out: {reason}")
            continue
        source = Source(index, _write_beton(index, encoding, settings, work, say) if encoding else None)
        with ExitStack() as stack:
            results.append(_measure(name, source, settings, stack, say))
    return results


def installed_loaders() -> list[str]:
    """The comparisons that can be made here."""
    names = ("dali", "ffcv-raw", "ffcv-jpeg", "torchvision")
    return [name for name in names if missing(name.partition("-")[0]) is None]


def _measure(name: str, source: Source, settings: LoaderSettings, stack: ExitStack, say: Any) -> Pairs:
    options = BackendOptions(
        resolution=settings.resolution, num_threads=settings.threads or usable_cpus(), max_batch=settings.batch
    )
    requests = _endless_rows(source.index, options.max_batch)
    replayed = stack.enter_context(closing(decoded(name.partition("-")[0], source, options, requests)))
    native = stack.enter_context(closing(_native(name, source, options, settings.data)))
    skipped = options.prefetch + 4

    def rate(batches: Iterator[torch.Tensor]) -> float:
        return window_rate(batches, skipped=skipped, counted=settings.batches)

    rate(replayed)  # compilation, page cache, worker processes
    rate(native)
    return alternate(name, "images/s", lambda: rate(replayed), lambda: rate(native), settings.repeats, say)


def decoded(
    backend: str, source: Source, options: BackendOptions, requests: Iterator[PlanRows]
) -> Generator[torch.Tensor, None, None]:
    """The images of each request, from a backend that is closed with the generator."""
    opened = open_backend(backend, source, options)
    try:
        for pixels in opened.stream(requests):
            yield pixels.images
    finally:
        opened.close()


def _endless_rows(index: Index, batch: int) -> Iterator[PlanRows]:
    """Whole batches of ever new views, as training draws them."""
    plan = Plan(get_policy("imagenet_train"), plan_seed=0)
    for epoch in itertools.count():
        order = permutation(len(index), 0, epoch)
        for first in range(0, len(order) - batch + 1, batch):
            at = order[first : first + batch]
            yield plan.rows(index.ids[at], np.full(batch, epoch), index.widths[at], index.heights[at])


def _native(name: str, source: Source, options: BackendOptions, folder: Path) -> Generator[torch.Tensor, None, None]:
    if name == "dali":
        from pipeline.data.backends.dali import native_random_crop  # optional package

        yield from native_random_crop(source.index, options, seed=0)
    elif source.beton is not None:
        from pipeline.data.backends.ffcv import native_loader  # optional package

        yield from native_loader(source.beton, options, seed=0)
    else:
        yield from _image_folder(folder, options)


def _image_folder(folder: Path, options: BackendOptions) -> Iterator[torch.Tensor]:
    """ImageFolder and DataLoader with the transforms of torchvision's reference training, up to uint8 pixels."""
    transforms = [
        v2.RandomResizedCrop(options.resolution, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.PILToTensor(),
    ]
    data = ImageFolder(str(folder), v2.Compose(transforms))
    workers = DataLoader(
        data,
        batch_size=options.max_batch,
        sampler=RandomSampler(data, replacement=True, num_samples=10**8),  # no epoch ends inside a window
        num_workers=options.num_threads,
        prefetch_factor=options.prefetch,
        drop_last=True,
        multiprocessing_context="forkserver",  # the other stream's threads do not survive a fork
    )
    for images, _ in workers:
        yield images


def _write_beton(index: Index, encoding: str, settings: LoaderSettings, work: Path, say: Any) -> Path:
    from pipeline.data.beton_writer import write_beton  # optional package

    path = work / f"{encoding}-{settings.max_side}.beton"
    if not path.exists():
        say(f"writing {path} ({len(index):,} images)")
        write_beton(index, path, encoding=encoding, max_side=settings.max_side, quality=90)  # type: ignore[arg-type]
    return path


def measure_metadata() -> dict[str, float]:
    """What a rank pays for ImageNet's 1,281,167 samples: plan, order, opening the index, first batch, memory.

    Measured in a process of its own, whose memory nothing else has touched.
    """
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        path = Path(folder) / "train.index.h5"
        _generated_index().save(path)
        return process.submit(_metadata, path).result()


def _metadata(path: Path) -> dict[str, float]:
    before = _resident_mb()
    started = time.perf_counter()
    index = load_index(path)
    opened_s = time.perf_counter() - started
    order = Order(index.ids, run_seed=0, micro_batch=256, num_micro_batches=1)
    backend = open_backend("synthetic", Source(index), BackendOptions(resolution=224, num_threads=1, max_batch=256))
    loader = Loader(index, Plan(get_policy("imagenet_train"), 0), backend, torch.device("cpu"))
    with closing(loader.training(order, rank=0, world_size=1, start_step=0, stop_step=10)) as batches:
        next(batches)
        first_s = time.perf_counter() - started
        resident_mb = _resident_mb() - before
    return {
        "samples": len(index),
        "order_s": _median_s(lambda: permutation(len(index), 0, 1)),
        "plan_us_per_sample": _plan_us(index),
        "open_index_s": opened_s,
        "first_batch_s": first_s,
        "metadata_mb": resident_mb,
    }


def _plan_us(index: Index) -> float:
    plan, count, batch = Plan(get_policy("imagenet_train"), 0), 100_000, 256
    at = [permutation(len(index), 0, 0)[first : first + batch] for first in range(0, count, batch)]

    def draw() -> None:
        for rows in at:
            plan.rows(index.ids[rows], np.zeros(len(rows)), index.widths[rows], index.heights[rows])

    return _median_s(draw) / (len(at) * batch) * 1e6


def _median_s(action: Any, repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return sorted(times)[repeats // 2]


def _generated_index() -> Index:
    """ImageNet's number of rows with paths of ImageNet's length."""
    index = synthetic_index(IMAGENET_SAMPLES, 1000)
    name = np.frombuffer(b"n01440764/n01440764_10026.JPEG", np.uint8)
    fields = {**index.__dict__, "path_bytes": np.tile(name, len(index))}
    fields["path_ends"] = np.arange(len(index) + 1, dtype=np.int64) * len(name)
    return Index(**fields)


def _resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0
