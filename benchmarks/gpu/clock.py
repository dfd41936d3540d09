"""Times on a device: what passes there, what the host spends, and a device that is kept busy without work."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks._shared.clock import finish, kernel_spans
from benchmarks._shared.pairs import seconds_of

_CYCLES = 50_000_000  # some 30 ms: what `torch.cuda._sleep` is calibrated with
_sleep: Callable[[int], object] = torch.cuda._sleep  # keeps the device busy for so many cycles


@dataclass(frozen=True)
class Kernels:
    """What the device ran for one call.

    Attributes:
        count: kernels, copies and fills.
        busy_ms: time in which at least one of them ran.
    """

    count: float
    busy_ms: float


def device_ms(device: torch.device, work: Callable[[], object], count: int) -> float:
    """Milliseconds of one of `count` calls in a row, between two events on the device's own clock."""
    if device.type != "cuda":
        return 1000 * seconds_of(work, count) / count
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    finish(device)
    begun.record()
    for _ in range(count):
        work()
    ended.record()
    finish(device)
    return begun.elapsed_time(ended) / count


def images_rate(device: torch.device, step: Callable[[], object], batch: int, window_ms: float) -> Callable[[], float]:
    """Measures images per second of a step, over as many as take about so long, between 2 and 50."""
    count = max(2, min(50, round(window_ms / max(0.1, device_ms(device, step, 2)))))
    return lambda: 1000 * batch / device_ms(device, step, count)


def host_ms(device: torch.device, work: Callable[[], object], repeats: int = 5) -> float:
    """Median milliseconds in which the host has launched one call on an idle device."""
    times = []
    for _ in range(repeats):
        finish(device)
        times.append(1000 * seconds_of(work))
    finish(device)
    return statistics.median(times)


def kernels_of(work: Callable[[], object], count: int) -> Kernels:
    """Of one of `count` calls, by torch's profiler; without any where it sees none."""
    spans = kernel_spans(lambda: [work() for _ in range(count)])
    return Kernels(len(spans) / count, covered(spans) / 1000 / count)


def covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


class Sleeper:
    """Keeps the current stream busy for a given time, as a step would, at no cost to the host.

    Args:
        device: calibrated once; on a processor the caller's thread sleeps.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._cycles_per_ms = device, 0.0
        if device.type == "cuda":
            _sleep(_CYCLES)
            self._cycles_per_ms = _CYCLES / device_ms(device, lambda: _sleep(_CYCLES), 3)

    def sleep(self, milliseconds: float) -> None:
        """Enqueue it."""
        if self._device.type == "cuda":
            _sleep(int(self._cycles_per_ms * milliseconds))
        else:
            time.sleep(milliseconds / 1000)
