"""The pairs of streams.

Both streams of a pair are open and endless; a window of one is timed while the other stands still, in turn. The first
batches of a window, decoded while the stream stood still, are not counted.
"""

import itertools
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks._shared.pairs import Pairs, alternate, say, window_rate
from benchmarks._shared.pixels import backend_of, installed, plan_rows, source_of
from benchmarks.loader import BACKENDS, Loader
from pipeline.core.cpu import usable_cpus
from pipeline.core.errors import ConfigError
from pipeline.data.backend import BackendOptions, Source
from pipeline.data.index import Index
from pipeline.data.order import permutation
from pipeline.data.plan import PlanRows
from pipeline.data.scan import scan_folder


def measure_loaders(settings: Loader, work: Path) -> list[Pairs]:
    """Replayed against native, for each of the backends; `work` takes FFCV's copies."""
    index, _ = scan_folder(settings.data)
    if len(index) < settings.batch:
        raise ConfigError(f"--batch must be at most the {len(index):,} images of {settings.data}, got {settings.batch}")
    results = []
    for name in settings.backends or installed(BACKENDS):
        reason = backend_of(name).missing()
        if reason is not None:
            say(f"{name}: left out: {reason}")
            continue
        results.append(_measure(name, source_of(name, index, work, settings.max_side), settings))
    return results


def _measure(name: str, source: Source, settings: Loader) -> Pairs:
    options = BackendOptions(
        resolution=settings.resolution, num_threads=settings.threads or usable_cpus(), max_batch=settings.batch
    )
    requests = _endless_rows(source.index, options.max_batch)
    skipped = options.prefetch + 4

    def rate(batches: Iterator[torch.Tensor]) -> float:
        return window_rate(batches, skipped=skipped, counted=settings.batches)

    with (
        closing(_replayed(name, source, options, requests)) as replayed,
        closing(_native(name, source, options, settings.data)) as native,
    ):
        rate(replayed)  # compilation, page cache, worker processes
        rate(native)
        return alternate(name, "images/s", lambda: rate(replayed), lambda: rate(native), settings.repeats)


def _replayed(
    name: str, source: Source, options: BackendOptions, requests: Iterator[PlanRows]
) -> Generator[torch.Tensor, None, None]:
    with closing(backend_of(name)(source, options)) as opened:
        for pixels in opened.stream(requests):
            yield pixels.images


def _endless_rows(index: Index, batch: int) -> Iterator[PlanRows]:
    """Whole batches of ever new views, as training draws them."""
    for epoch in itertools.count():
        order = permutation(len(index), 0, epoch)
        for first in range(0, len(order) - batch + 1, batch):
            yield plan_rows(index, order[first : first + batch], np.full(batch, epoch))


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
