"""Each loader beside a device that sleeps for a step's time: does it feed a GPU, and how long does the loop wait?"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

import torch

from benchmarks._shared.clock import finish
from benchmarks._shared.pixels import backend_of, endless_batches, source_of
from benchmarks.gpu.clock import Sleeper
from benchmarks.gpu.findings import Outcome, Part, Setting, measured, unproven
from benchmarks.gpu.images import decoding_of, image_index
from pipeline.data.backend import Backend, BackendOptions, Source
from pipeline.data.loader import Batch

SECTION = (12, "loaders beside a sleeping step", 60)

_BACKENDS = ("torchvision", "ffcv-jpeg", "dali", "dali-mixed")  # the last may end the process


@dataclass(frozen=True)
class Fed:
    """A loop of so many steps.

    Attributes:
        images_per_s: over the whole loop.
        waited: share of it in which the host waited for a batch.
        idle: share of it in which the device did not sleep, so had nothing to do.
    """

    images_per_s: float
    waited: float
    idle: float


def parts(setting: Setting) -> list[Part]:
    """A part for each backend."""
    return [Part(name, partial(_measure, name, setting)) for name in _BACKENDS]


def _measure(name: str, setting: Setting) -> Outcome:
    if backend_of(name).missing() is not None:
        return unproven(f"{backend_of(name).name} is not installed")
    index = image_index(setting)
    batch, step_ms = min(setting.pick(256, 64, 4), len(index)), setting.pick(90.0, 25.0, 1.0)
    options = BackendOptions(setting.pick(224, 224, 32), setting.threads, batch, device=setting.device)
    backend, options = decoding_of(name, options)
    source = source_of(name, index, setting.work)
    alone, beside = (_loop(source, backend, options, setting, milliseconds) for milliseconds in (0.0, step_ms))
    text = (
        f"alone {alone.images_per_s:,.0f} images/s; beside a step of {batch} in {step_ms:.0f} ms"
        f" {beside.images_per_s:,.0f} of {1000 * batch / step_ms:,.0f} images/s, waits {100 * beside.waited:.0f} %,"
        f" device idle {100 * beside.idle:.0f} %; {setting.threads} threads"
    )
    return measured(text, alone=asdict(alone), beside=asdict(beside), batch=batch, step_ms=step_ms)


def _loop(source: Source, backend: type[Backend], options: BackendOptions, setting: Setting, step_ms: float) -> Fed:
    device = torch.device(setting.device)
    with endless_batches(backend, source, options, device) as batches:
        return feed(batches, Sleeper(device), device, steps=setting.pick(40, 10, 3), step_ms=step_ms)


def feed(batches: Iterator[Batch], sleeper: Sleeper, device: torch.device, *, steps: int, step_ms: float) -> Fed:
    """Steps that sleep, at most one of them ahead of the host, as metrics that are read a step late hold it."""
    for _ in range(3):
        next(batches)
    finish(device)
    began, waited, images = time.perf_counter(), 0.0, 0
    before: torch.cuda.Event | None = None
    for _ in range(steps):
        batch = next(batches)
        waited += batch.wait_s
        images += len(batch.images)
        if step_ms:
            sleeper.sleep(step_ms)
        before = _hold_back(device, before)
    finish(device)
    seconds = time.perf_counter() - began
    return Fed(images / seconds, waited / seconds, max(0.0, 1 - steps * step_ms / 1000 / seconds))


def _hold_back(device: torch.device, before: torch.cuda.Event | None) -> torch.cuda.Event | None:
    """Mark this step's end, and wait for that of the step before."""
    if device.type != "cuda":
        return None
    done = torch.cuda.Event()
    done.record()
    if before is not None:
        before.synchronize()
    return done
