"""What a step asks for: memory beyond what was there, gradient included."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Peak:
    """Memory of one step.

    Attributes:
        name: what ran.
        peak_bytes: highest sum of what it had asked for and not given back.
        buffers: that in float32 buffers of the logits' shape.
    """

    name: str
    peak_bytes: int
    buffers: float


def peak_of(name: str, step: Callable[[], None], logits_BC: torch.Tensor) -> Peak:
    """Of a step in a fresh thread, whose scratch memory from earlier calls is not there: all of it is counted."""
    step()  # compilation, workspaces of libraries
    logits_BC.grad = None  # freed inside the measured step, it would count as less than nothing
    found: list[int] = []
    measure = _cuda_peak if logits_BC.is_cuda else _processor_peak
    worker = threading.Thread(target=lambda: found.append(measure(step)))
    worker.start()
    worker.join()
    return Peak(name, found[0], found[0] / (4 * logits_BC.numel()))


def _cuda_peak(step: Callable[[], None]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _processor_peak(step: Callable[[], None]) -> int:
    """From the allocator's own records, in order of time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    changes = [
        (event.start_ns(), event.nbytes())
        for event in recorded.profiler.kineto_results.events()  # type: ignore[union-attr]
        if event.name() == "[memory]"
    ]
    peak = held = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        held += change
        peak = max(peak, held)
    return peak
