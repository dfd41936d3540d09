"""What --deterministic costs: the same step with deterministic kernels and with the fastest, in pairs."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import torch

from benchmarks._shared.pairs import alternate
from benchmarks.gpu.clock import images_rate
from benchmarks.gpu.findings import Outcome, Part, Setting, measured
from benchmarks.gpu.workloads import config_of, held_step, open_workload
from pipeline.devices.numerics import set_kernels

SECTION = (11, "what --deterministic costs", 45)

_PRICED = ("vanilla", "KD online")


def parts(setting: Setting) -> list[Part]:
    """A part for each of two workloads."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once a process; both sides of a pair have it
    return [Part(name, partial(_price, name, setting)) for name in _PRICED]


def _price(name: str, setting: Setting) -> Outcome:
    batch = setting.pick(256, 32, 8)
    with ExitStack() as stack:
        free, fixed = (_rate(stack, name, setting, batch, deterministic=which) for which in (False, True))
        pairs = alternate("deterministic / free", "images/s", fixed, free, setting.pick(5, 3, 2))
    text = f"{pairs.ratio:.3f} of the speed at {batch} images"
    return measured(text, **pairs.to_json())


def _rate(stack: ExitStack, name: str, setting: Setting, batch: int, *, deterministic: bool) -> Callable[[], float]:
    """Images per second of a training that was built, warmed up and is run under its own kernels."""
    config = config_of(name, setting, batch=batch, deterministic=deterministic)
    training = stack.enter_context(open_workload(config, setting))
    rate = images_rate(torch.device(setting.device), held_step(training), batch, setting.pick(500, 100, 1))

    def under_own_kernels() -> float:
        set_kernels(deterministic=deterministic, precision=training.config.numerics.amp)
        return rate()

    return under_own_kernels
