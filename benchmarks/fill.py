"""What precompute costs beside its loader: batches, plan checksums, encoding, checksums and writing; not the teacher.

Each window of either is one whole view of the data, from opening the stream to its end; precompute's ends with its
shard on the disk.
"""

import itertools
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.pairs import Pairs, alternate
from pipeline.config import Images, Pixels, Reading
from pipeline.data.backends.base import Source
from pipeline.data.index import Index
from pipeline.data.scan import scan_folder
from pipeline.devices.world import start_world
from pipeline.jobs.pulse import Pulse
from pipeline.jobs.signals import StopRequest
from pipeline.models.outputs import Outputs
from precompute.config import PrecomputeConfig
from precompute.requests import unit_requests
from precompute.setting import Setting, open_setting
from precompute.units import fill_units
from precompute.work import Unit
from stores.codecs.dense_f16 import DenseF16

Say = Callable[[str], None]
_CLASSES = 1000


@dataclass(frozen=True)
class FillSettings:
    """How filling a store is measured.

    Attributes:
        data: folder with a folder of images per class.
        resolution: output side in pixels.
        batch: images of a batch.
        threads: decoder threads; None for all cores.
        repeats: pairs.
    """

    data: Path
    resolution: int = 224
    batch: int = 64
    threads: int | None = None
    repeats: int = 5


def against_loader(settings: FillSettings, backends: list[str], work: Path, say: Say) -> list[Pairs]:
    """Images per second of precompute with a teacher that costs nothing, against its loader alone.

    Each window of either is one whole view of the data, from opening the stream to its end; precompute's ends with its
    shard on the disk.

    Args:
        settings: how.
        backends: of "dali", "torchvision" and "ffcv-jpeg".
        work: folder for the stores, and FFCV's copy.
        say: shows a line.
    """
    index, _ = scan_folder(settings.data)
    results = []
    for name in backends:
        source = source_of(name, index, work, say)
        config = PrecomputeConfig(
            teacher="demo_teacher@random",
            store=Path(tempfile.mkdtemp(dir=work)),
            images=Images(train_dir=settings.data, beton=source.beton),
            pixels=Pixels(resolution=settings.resolution),
            reading=Reading(backend=name.partition("-")[0], threads=settings.threads),
            batch=settings.batch,
            device="cpu",
        )
        world = start_world("cpu", settings.threads)
        with open_setting(config, world, work) as setting:
            results.append(_measure_fill(name, setting, settings.repeats, say))
    return results


class FreeTeacher:
    """Stands where a teacher stands, and gives the same 1,000 logits for every image."""

    def __init__(self, batch: int) -> None:
        self._logits = torch.randn(batch, _CLASSES, generator=torch.Generator().manual_seed(0))

    def outputs(self, images_BHWC: torch.Tensor) -> Outputs:
        """Constant logits."""
        return Outputs(logits=self._logits[: len(images_BHWC)])


def _measure_fill(name: str, setting: Setting, repeats: int, say: Say) -> Pairs:
    codecs, size = (DenseF16(width=_CLASSES),), len(setting.source.index)
    manifest = replace(setting.manifest, codecs=tuple(codec.to_json() for codec in codecs))
    free = FreeTeacher(setting.config.batch)
    setting = replace(setting, codecs=codecs, manifest=manifest, teacher=free)  # type: ignore[arg-type]
    views = itertools.count()

    def fill() -> float:
        started = time.perf_counter()
        fill_units(setting, [Unit((next(views),), 0, size)], Pulse(setting.world, StopRequest(), lambda _: None))
        return size / (time.perf_counter() - started)

    def load() -> float:
        started = time.perf_counter()
        requests = unit_requests(Unit((next(views),), 0, size), 0, setting.loader, setting.config.batch)
        with closing(setting.loader.load(requests)) as batches:
            count = sum(len(batch.images) for batch in batches)
        return count / (time.perf_counter() - started)

    load()  # compilation, page cache
    fill()
    return alternate(name, "images/s", fill, load, repeats, say)


def source_of(name: str, index: Index, work: Path, say: Say) -> Source:
    """What backend `name` reads: the files, or for "ffcv-jpeg" a copy of them that is made in `work` once."""
    if name != "ffcv-jpeg":
        return Source(index)
    from pipeline.data.beton_writer import write_beton  # optional package

    path = work / "fill.beton"
    if not path.exists():
        say(f"writing {path} ({len(index):,} images)")
        write_beton(index, path, encoding="jpeg", max_side=500, quality=90)
    return Source(index, path)
