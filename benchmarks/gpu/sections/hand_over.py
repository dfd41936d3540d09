"""A consumer whose stream lags behind gets the pixels and rows of a synchronised one, batch for batch.

The device sleeps before each `next()`, so that every hand-over is queued behind work, as behind a training step; if a
buffer goes back to its pool too early, a later batch shows in an earlier one. DALI on the GPU comes last: it may end
the process.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from itertools import chain, islice

import numpy as np
import torch

from benchmarks._shared.clock import finish
from benchmarks._shared.machine import package_version
from benchmarks._shared.pixels import endless_batches
from benchmarks.gpu.clock import Sleeper
from benchmarks.gpu.findings import Outcome, Part, Setting, check, unproven
from benchmarks.gpu.images import decoding_of, image_index
from benchmarks.gpu.workloads import config_of, open_workload
from pipeline.data.backend import BackendOptions, Source, open_backend, resolve_backend
from pipeline.data.dali_proof import TOLERANCE, pixel_distance
from pipeline.data.loader import Batch

SECTION = (5, "pixels and rows reach a late consumer unharmed", 80)

_LAG_MS = 40.0  # longer than a batch takes to decode, so that the lag grows
_COMPARED = 4  # batches, with the reference backend


def parts(setting: Setting) -> list[Part]:
    """Copies ahead from pinned memory, rows of a store, DALI."""
    return [
        Part("torchvision, copied ahead", partial(_late, "torchvision", setting)),
        Part("stored rows, copied ahead", partial(_late_rows, setting)),
        Part("DALI on the CPU, copied ahead", partial(_late, "dali", setting)),
        Part("DALI mixed", partial(_mixed, setting)),
    ]


def crcs(batches: Iterator[Batch], count: int, device: torch.device, lag: Sleeper | None) -> list[tuple[int, ...]]:
    """Of each batch: CRC-32 of its images, ids, labels and stored rows, as the consumer's stream reads them.

    Args:
        batches: from a loader.
        count: batches to take.
        device: theirs.
        lag: keeps the stream behind the host; None synchronises before and after each batch.
    """
    kept = []
    for _ in range(count):
        finish(device) if lag is None else lag.sleep(_LAG_MS)
        batch = next(batches)
        kept.append([value.clone() for value in (batch.images, batch.ids, batch.labels, *batch.stored.values())])
        if lag is None:
            finish(device)
    finish(device)
    return [tuple(zlib.crc32(value.cpu().numpy().tobytes()) for value in values) for values in kept]


def compared(synchronised: list[tuple[int, ...]], late: list[tuple[int, ...]]) -> tuple[bool, str]:
    """Whether all batches are equal and no two of one run are, and that in words."""
    wrong = [number for number, pair in enumerate(zip(synchronised, late, strict=True)) if pair[0] != pair[1]]
    same = len(set(synchronised)) < len(synchronised)
    if same:
        return False, "different batches have one CRC: the device copies nothing"
    text = f"{len(late)} batches, {len(wrong)} with other bytes"
    return not wrong, f"{text}, the first at {wrong[0]}" if wrong else text


def _late(name: str, setting: Setting) -> Outcome:
    if resolve_backend(name).missing() is not None:
        return unproven(f"{name} is not installed")
    return check(*_compare_runs(partial(_batches, name), setting, setting.pick(100, 30, 3)))


def _compare_runs(
    opened: Callable[[Setting], AbstractContextManager[Iterator[Batch]]], setting: Setting, count: int
) -> tuple[bool, str]:
    device = torch.device(setting.device)
    found = []
    for lag in (None, Sleeper(device)):
        with opened(setting) as batches:
            found.append(crcs(batches, count, device, lag))
    return compared(*found)


def _batches(name: str, setting: Setting) -> AbstractContextManager[Iterator[Batch]]:
    """From the real loader, in the order of training."""
    index = image_index(setting)
    backend, options = decoding_of(name, _options(setting, min(setting.pick(64, 32, 4), len(index)), setting.device))
    return endless_batches(backend, Source(index), options, torch.device(setting.device))


def _options(setting: Setting, batch: int, device: str) -> BackendOptions:
    return BackendOptions(setting.pick(224, 224, 128), setting.threads, batch, device=device)


def _late_rows(setting: Setting) -> Outcome:
    return check(*_compare_runs(_stored_batches, setting, setting.pick(60, 20, 3)))


@contextmanager
def _stored_batches(setting: Setting) -> Iterator[Iterator[Batch]]:
    with open_workload(config_of("KD stored", setting, batch=setting.pick(64, 32, 8)), setting) as training:
        yield chain.from_iterable(training.steps)


def _mixed(setting: Setting) -> Outcome:
    if resolve_backend("dali").missing() is not None:
        return unproven("DALI on a GPU: unproven, DALI is not installed")
    holds, text = _compare_runs(partial(_batches, "dali-mixed"), setting, setting.pick(200, 60, 3))
    ours, reference = beside_the_reference("dali-mixed", setting)
    refusal = TOLERANCE.refusal(ours, reference)
    mean, most = pixel_distance(ours, reference)
    text += f"; {refusal or f'pixels differ from the reference by {mean:.3f}, 99.9 % of them by {most:.0f} at most'}"
    if holds and refusal is None and setting.on_cuda:
        installed = package_version("nvidia-dali-cuda130")
        text += f'; proven: add "{installed}" to PROVEN_ON_CUDA in pipeline/data/backends/dali.py'
    return check(holds and refusal is None, text, mean=mean, most=most)


def beside_the_reference(name: str, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Some batches' uint8 pixels, (N, R, R, 3), by a backend and by the reference."""
    with _batches(name, setting) as endless:
        batches = list(islice(endless, _COMPARED))
    options = _options(setting, len(batches[0].images), "cpu")
    with closing(open_backend("torchvision", Source(image_index(setting)), options)) as reference:
        exact = [pixels.images for pixels in reference.stream([batch.rows for batch in batches])]
    return torch.cat([batch.images.cpu() for batch in batches]).numpy(), torch.cat(exact).numpy()
