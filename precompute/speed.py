"""How fast loader and teacher are here, each alone and both together, from a few batches."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from pipeline.data.loader import Batch, Request
from precompute.requests import view_request
from precompute.setting import Setting

_Item = TypeVar("_Item", Batch, torch.Tensor)
_WARM_UP = 4  # what the loader had ready before the clock started
_LONGEST_S = 15.0


@dataclass(frozen=True)
class Speeds:
    """Images (rows) a second, over all ranks: the loader alone, the teacher alone, both as the job runs them."""

    loader: float
    teacher: float
    together: float


def measure_speeds(setting: Setting, num_batches: int) -> Speeds:
    """Measure on every rank at once, a few seconds each. A collective call."""
    num_views = setting.config.views_per_decode
    with closing(setting.loader.load(_endless_requests(setting))) as batches:
        images = next(batches).images[::num_views].contiguous()
        loader = _rate(setting, batches, num_batches, lambda _: None)
        together = _rate(setting, batches, num_batches, lambda batch: _teach(setting, batch, num_views))
    teacher = _rate(setting, itertools.repeat(images), num_batches, setting.teacher.of_pixels)
    told = setting.world.gather([loader, teacher, together])
    return Speeds(*(sum(values) for values in zip(*told, strict=True)))


def _rate(setting: Setting, items: Iterator[_Item], num_batches: int, action: Callable[[_Item], object]) -> float:
    for item in itertools.islice(items, _WARM_UP):
        action(item)
    _wait(setting)
    started, rows = time.perf_counter(), 0
    for item in itertools.islice(items, num_batches):
        action(item)
        rows += len(item) if isinstance(item, torch.Tensor) else len(item.rows)
        if time.perf_counter() - started > _LONGEST_S:
            break
    _wait(setting)
    return rows / (time.perf_counter() - started)


def _teach(setting: Setting, batch: Batch, num_views: int) -> None:
    for position in range(num_views):
        setting.teacher.of_pixels(batch.images[position::num_views])


def _endless_requests(setting: Setting) -> Iterator[Request]:
    """Batches as the job has them, of ever new views, starting over where the data set ends."""
    size, num_views, batch = len(setting.source.index), setting.config.views_per_decode, setting.config.batch
    for number, first in enumerate(itertools.count(0, batch)):
        views = tuple(range(number * num_views, (number + 1) * num_views))
        yield view_request(views, np.arange(first, first + batch) % size, setting.loader, step=number, first=first)


def _wait(setting: Setting) -> None:
    if setting.world.device.type == "cuda":
        torch.cuda.synchronize(setting.world.device)
