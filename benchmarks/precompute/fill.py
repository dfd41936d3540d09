"""What precompute costs beside its loader: batches, plan checksums, encoding, checksums and writing; not the teacher.

Each window of either is one whole view of the data, from opening the stream to its end; precompute's ends with its
shard on the disk.
"""

import itertools
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks._shared.imagenet import CLASSES
from benchmarks._shared.pairs import Pairs, alternate, seconds_of
from benchmarks._shared.pixels import backend_of, source_of
from benchmarks.precompute import Precompute
from pipeline.config import Images, Pixels, Reading
from pipeline.data.scan import scan_folder
from pipeline.devices.world import start_world
from pipeline.jobs.pulse import Pulse
from pipeline.jobs.signals import StopRequest
from pipeline.models.outputs import Outputs
from precompute.config import PrecomputeConfig
from precompute.requests import unit_requests
from precompute.setting import Setting, check_names, open_setting
from precompute.units import fill_units
from precompute.work import Unit
from stores.codecs.dense_f16 import DenseF16

_BATCH = 64  # images


def against_loader(settings: Precompute, backends: Sequence[str], work: Path) -> list[Pairs]:
    """Images per second of precompute with a teacher that costs nothing, against its loader alone.

    `work` takes the stores, and FFCV's copy.
    """
    index, _ = scan_folder(settings.data)
    results = []
    for name in backends:
        config = PrecomputeConfig(
            teacher="demo_teacher@random",
            store=Path(tempfile.mkdtemp(dir=work)),
            images=Images(train_dir=settings.data, beton=source_of(name, index, work).beton),
            pixels=Pixels(resolution=settings.resolution),
            reading=Reading(backend=backend_of(name).name, threads=settings.threads),
            batch=_BATCH,
            device="cpu",
        )
        with open_setting(config, check_names(config), start_world("cpu", settings.threads), work) as setting:
            results.append(_measure_fill(name, setting, settings.repeats))
    return results


class FreeTeacher:
    """Stands where a teacher stands, and gives the same 1,000 logits for every image."""

    def __init__(self, batch: int) -> None:
        self._logits = torch.randn(batch, CLASSES, generator=torch.Generator().manual_seed(0))

    def of_pixels(self, pixels_BHWC: torch.Tensor) -> Outputs:
        """Constant logits."""
        return Outputs(logits=self._logits[: len(pixels_BHWC)])


def _measure_fill(name: str, setting: Setting, repeats: int) -> Pairs:
    codecs, size = (DenseF16(width=CLASSES),), len(setting.source.index)
    manifest = replace(setting.manifest, codecs=tuple(codec.to_json() for codec in codecs))
    free = FreeTeacher(setting.config.batch)
    setting = replace(setting, codecs=codecs, manifest=manifest, teacher=free)  # type: ignore[arg-type]
    views = itertools.count()

    def fill(unit: Unit) -> None:
        fill_units(setting, [unit], Pulse(setting.world, StopRequest(), lambda _: None))

    def load(unit: Unit) -> None:
        requests = unit_requests(unit, 0, setting.loader, setting.config.batch)
        with closing(setting.loader.load(requests)) as batches:
            for _ in batches:
                pass

    def rate(work: Callable[[Unit], None]) -> float:
        return size / seconds_of(lambda: work(Unit((next(views),), 0, size)))

    rate(load)  # compilation, page cache
    rate(fill)
    return alternate(name, "images/s", lambda: rate(fill), lambda: rate(load), repeats)
