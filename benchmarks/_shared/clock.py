"""A device that is waited for, and the kernels that it runs."""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

CPU = torch.device("cpu")


def finish(device: torch.device) -> None:
    """Wait until the device has done all."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def kernel_spans(work: Callable[[], object]) -> list[tuple[float, float]]:
    """Begin and end, in microseconds, of each kernel, copy and fill that `work` starts on the GPU."""
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        work()
        torch.cuda.synchronize()
    events = [event for event in recorded.events() or [] if event.device_type.name == "CUDA"]
    own = [event for event in events if not getattr(event, "is_user_annotation", False)]
    return [(event.time_range.start, event.time_range.end) for event in own]
