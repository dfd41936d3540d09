"""What several views from one decode are worth: decoding a JPEG costs more than all that is done with its pixels.

Both sides of a pair make the same views of the same images, from start to end: nothing of one is prefetched in the time
of the other.
"""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.pairs import Pairs, alternate
from pipeline.core.cpu import usable_cpus
from pipeline.data.backend import BackendOptions, Source, open_backend
from pipeline.data.index import Index
from pipeline.data.plan import Plan, PlanRows
from pipeline.data.policy import get_policy
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
        images: images of each pair.
        repeats: pairs.
    """

    data: Path
    views: int = 8
    resolution: int = 224
    batch: int = 256
    threads: int | None = None
    images: int = 256
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
    shared, passes = shared_rows(source.index, settings), rows_of_passes(source.index, settings)
    with closing(open_backend(name.partition("-")[0], source, options)) as backend:

        def rate(requests: list[PlanRows]) -> float:
            started = time.perf_counter()
            count = sum(len(pixels.images) for pixels in backend.stream(requests))
            return count / (time.perf_counter() - started)

        rate(shared)  # compilation, page cache
        return alternate(name, "views/s", lambda: rate(shared), lambda: rate(passes), settings.repeats, say)


def shared_rows(index: Index, settings: DecodeSettings) -> list[PlanRows]:
    """Requests of whole images: all views of the first, all views of the next."""
    images = _cut(_chosen(index, settings), max(1, settings.batch // settings.views))
    views = np.arange(settings.views)
    return [_rows(index, np.repeat(at, settings.views), np.tile(views, len(at))) for at in images]


def rows_of_passes(index: Index, settings: DecodeSettings) -> list[PlanRows]:
    """The same rows: one view of every image, then another."""
    images = _cut(_chosen(index, settings), settings.batch)
    return [_rows(index, at, np.full(len(at), view)) for view in range(settings.views) for at in images]


def _chosen(index: Index, settings: DecodeSettings) -> np.ndarray:
    """Positions of the images, spread evenly, in the order of the files, as precompute reads them."""
    return np.unique(np.linspace(0, len(index) - 1, settings.images).astype(np.int64))


def _cut(positions: np.ndarray, size: int) -> list[np.ndarray]:
    return np.split(positions, np.arange(size, len(positions), size))


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
