"""A step's time on the device and on the host, how busy the device is in it, and its memory.

Batches are held on the device, so that no loader is measured. The share in which the device is busy is the time in
which kernels ran, by torch's profiler, over the time of a step without the profiler, by events: what is left are gaps.
"""

import itertools
from dataclasses import asdict, dataclass
from functools import partial

import torch

from benchmarks._shared.training import Training
from benchmarks.gpu.clock import Kernels, device_ms, host_ms, kernels_of
from benchmarks.gpu.findings import Outcome, Part, Setting, measured
from benchmarks.gpu.workloads import WORKLOADS, Graphs, config_of, held_step, open_workload

SECTION = (9, "a step's time, gaps and memory", 165)

_PROFILED = 3
_HOST_BOUND = 256
_GRAPHS: tuple[Graphs, ...] = ("off", "teacher")


@dataclass(frozen=True)
class StepFigures:
    """One step.

    Attributes:
        images_per_s: batch over `device_ms`.
        device_ms: between two events around many steps, over their number.
        host_ms: in which the host launches a step on an idle device.
        busy: share of `device_ms` in which the device ran a kernel; None where no profiler saw one.
        kernels: operations of the device.
        peak_gib: most memory that tensors had at once.
    """

    images_per_s: float
    device_ms: float
    host_ms: float
    busy: float | None
    kernels: float
    peak_gib: float

    def describe(self) -> str:
        """All of it in a line."""
        busy = "no kernel was seen" if self.busy is None else f"busy {100 * self.busy:.0f} %"
        return (
            f"{self.images_per_s:,.0f} images/s, step {self.device_ms:.1f} ms, host {self.host_ms:.1f} ms,"
            f" {busy}, {self.kernels:.0f} operations, peak {self.peak_gib:.1f} GiB"
        )


def parts(setting: Setting) -> list[Part]:
    """Batch by batch, since libraries choose algorithms once for each; graphs where a device may wait for its host."""
    jobs = [
        (name, batch, graphs)
        for batch, (name, work) in itertools.product(setting.pick((256, 32, 1024), (32,), (8,)), WORKLOADS.items())
        for graphs in (_GRAPHS if setting.on_cuda and work.online and batch <= _HOST_BOUND else _GRAPHS[:1])
    ]
    return [Part(_name(*job), partial(_measure, *job, setting)) for job in jobs]


def measure_step(training: Training, device: torch.device, seconds: float) -> StepFigures:
    """Of a training at work: it is warmed up before."""
    step = held_step(training)
    once = device_ms(device, step, 2)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    milliseconds = device_ms(device, step, max(3, min(200, round(1000 * seconds / max(once, 0.1)))))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    host = host_ms(device, step)
    kernels = kernels_of(step, _PROFILED) if device.type == "cuda" else Kernels(0, 0.0)
    return StepFigures(
        images_per_s=1000 * training.order.batch / milliseconds,
        device_ms=milliseconds,
        host_ms=host,
        busy=min(1.0, kernels.busy_ms / milliseconds) if kernels.count else None,
        kernels=kernels.count,
        peak_gib=peak / 2**30,
    )


def _name(workload: str, batch: int, graphs: Graphs) -> str:
    return f"{workload}, {batch} images{'' if graphs == 'off' else ', teacher as a graph'}"


def _measure(name: str, batch: int, graphs: Graphs, setting: Setting) -> Outcome:
    with open_workload(config_of(name, setting, batch=batch, graphs=graphs), setting) as training:
        figures = measure_step(training, torch.device(setting.device), setting.pick(1.0, 0.3, 0.01))
    return measured(figures.describe(), **asdict(figures))
