"""What several views from one decode are worth: decoding a JPEG costs more than all that is done with its pixels.

Both streams of a pair are open and endless; a window of one is timed while the other stands still, in turn.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.loader import decoded
from benchmarks.pairs import Pairs, alternate, window_rate
from pipeline.core.cpu import usable_cpus
from pipeline.data.backends.base import BackendOptions, Source
from pipeline.data.index import Index
from pipeline.data.plan import Plan, PlanRows
from pipeline.data.policies.registry import get_policy
from pipeline.data.scan import scan_folder

Say = Callable[[str], None]
_LONGEST_SIDE = 65500  # no image is reduced, so a copy holds the bytes of the original


@dataclass(frozen=True)
class DecodeSettings:
    """How shared decoding is measured.

    Attributes:
        data: folder with a folder of images per class.
        views: views cut out of one decoded image.
        resolution: output side in pixels.
        batch: rows of a request.
        threads: decoder threads; None for all cores.
        window: rows in a timed window.
        repeats: pairs.
    """

    data: Path
    views: int = 8
    resolution: int = 224
    batch: int = 256
    threads: int | None = None
    window: int = 2048
    repeats: int = 5


def views_per_decode(settings: DecodeSettings, backends: list[str], work: Path, say: Say) -> list[Pairs]:
    """Views per second: all views of an image in one request, against as many passes, each of another view.

    Args:
        settings: how.
        backends: of "torchvision" and "ffcv-jpeg", the backends that decode whole images.
        work: folder that keeps FFCV's copy (the original JPEGs in one file) for the next time.
        say: shows a line.
    """
    index, _ = scan_folder(settings.data)
    return [_measure(name, _source(name, index, work, say), settings, say) for name in backends]


def _measure(name: str, source: Source, settings: DecodeSettings, say: Say) -> Pairs:
    threads = settings.threads or usable_cpus()
    options = BackendOptions(resolution=settings.resolution, num_threads=threads, max_batch=settings.batch)
    backend = name.partition("-")[0]
    shared, passes = shared_rows(source.index, settings), rows_of_passes(source.index, settings)
    with (
        closing(decoded(backend, source, options, shared)) as one,
        closing(decoded(backend, source, options, passes)) as other,
    ):
        skipped, counted = options.prefetch + 1, max(1, settings.window // settings.batch)

        def rate(batches: Iterator[torch.Tensor]) -> float:
            return window_rate(batches, skipped=skipped, counted=counted)

        rate(one)  # compilation, page cache
        rate(other)
        return alternate(name, "views/s", lambda: rate(one), lambda: rate(other), settings.repeats, say)


def shared_rows(index: Index, settings: DecodeSettings) -> Iterator[PlanRows]:
    """Endless requests: all views of the first images, then of the next; after the last image, further views."""
    images = max(1, settings.batch // settings.views)
    for turn in itertools.count():
        views = turn * settings.views + np.arange(settings.views)
        for at in _in_order(index, images):
            yield _rows(index, np.repeat(at, settings.views), np.tile(views, len(at)))


def rows_of_passes(index: Index, settings: DecodeSettings) -> Iterator[PlanRows]:
    """Endless requests: one view of every image, then another."""
    for view in itertools.count():
        for at in _in_order(index, settings.batch):
            yield _rows(index, at, np.full(len(at), view))


def _in_order(index: Index, size: int) -> Iterator[np.ndarray]:
    """Positions in full batches, in the order of the files, as precompute reads them."""
    for first in range(0, max(1, len(index) - size + 1), size):
        yield np.arange(first, min(first + size, len(index)))


def _rows(index: Index, at: np.ndarray, views: np.ndarray) -> PlanRows:
    plan = Plan(get_policy("imagenet_train"), plan_seed=0)
    return plan.rows(index.ids[at], views, index.widths[at], index.heights[at])


def _source(name: str, index: Index, work: Path, say: Say) -> Source:
    if name == "torchvision":
        return Source(index)
    from pipeline.data.beton_writer import write_beton  # optional package

    path = work / "originals.beton"
    if not path.exists():
        say(f"writing {path} ({len(index):,} images)")
        write_beton(index, path, encoding="jpeg", max_side=_LONGEST_SIDE, quality=90)
    return Source(index, path)
