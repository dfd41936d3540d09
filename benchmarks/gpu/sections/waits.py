"""Steady steps of the real loop under torch's error for operations that wait for the device."""

from functools import partial

import torch

from benchmarks._shared.clock import finish
from benchmarks._shared.training import Training
from benchmarks.gpu.findings import Outcome, Part, Setting, check, needs_cuda
from benchmarks.gpu.workloads import WORKLOADS, Graphs, config_of, open_workload
from pipeline.engine.step import LateMetrics

SECTION = (4, "steady steps never wait for the device", 60)

_LEAST_LOSS = 0.1  # of networks that know nothing
_WARM_UPS = 6  # libraries choose their algorithms, pools grow, kernels are compiled


def parts(setting: Setting) -> list[Part]:
    """A part for each workload, and one with the teacher as a graph."""
    plain = [Part(name, partial(_steady, name, "off", setting)) for name in WORKLOADS]
    graphed = Part("KD online, teacher as a graph", partial(_steady, "KD online", "teacher", setting))
    return [*plain, *needs_cuda(setting, [graphed])]


def _steady(name: str, graphs: Graphs, setting: Setting) -> Outcome:
    steps, device = setting.pick(30, 10, 2), torch.device(setting.device)
    with open_workload(config_of(name, setting, batch=setting.pick(64, 32, 8), graphs=graphs), setting) as training:
        late = LateMetrics()
        first = _run(training, late, _WARM_UPS)
        finish(device)
        mode = torch.cuda.get_sync_debug_mode() if setting.on_cuda else 0
        try:
            if setting.on_cuda:
                torch.cuda.set_sync_debug_mode("error")
            last = _run(training, late, steps)
        finally:
            if setting.on_cuda:
                torch.cuda.set_sync_debug_mode(mode)
    learns = min(first, last) > _LEAST_LOSS
    text = f"{steps} steps from loader to metrics without a wait; loss {first:.3f}, then {last:.3f}"
    return check(learns, text if learns else f"{text}: the device computes nothing", first=first, last=last)


def _run(training: Training, late: LateMetrics, steps: int) -> float:
    """As a session steps: metrics are read a step late; returns the last loss that was read."""
    loss = 0.0
    for number in range(steps):
        late.push(number, training.step())
        for _, metrics in late.pop(keep=1):
            loss = metrics["loss"]
    return loss
