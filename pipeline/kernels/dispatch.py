"""Which form of a loss runs: Triton's on CUDA where Triton can run, the fused torch form elsewhere."""

import os
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch

_TRITON = find_spec("triton") is not None
_TYPES = (torch.float32, torch.float16, torch.bfloat16)


def use_triton(*logits: torch.Tensor) -> bool:
    """Whether these logits go to a Triton kernel: on CUDA, of types that float32 arithmetic is right for."""
    return all(each.is_cuda and each.dtype in _TYPES for each in logits) and triton_runs()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def triton_runs() -> bool:
    """Whether Triton is installed, builds and launches a kernel here; tried once in a process, when first asked.

    Launching needs more than Triton's wheel: its own helper is compiled with a C compiler and Python's headers. The
    launch is not waited for. Each process decides for itself: the two forms agree but for rounding, so ranks of a
    machine that lacks something may use one form beside ranks that use the other.
    """
    return _TRITON and _tried()


@cache
def _tried() -> bool:
    return attempt(lambda: import_module("pipeline.kernels.triton_probe").launch())


def attempt(step: Callable[[], object]) -> bool:
    """Whether `step` of Triton's runs to its end; if not, one warning a machine says what failed, and the remedy."""
    try:
        step()
    except Exception as error:  # a missing compiler, header, library or driver: each raises something else
        if os.environ.get("LOCAL_RANK", "0") == "0":
            warnings.warn(_lacking(error), RuntimeWarning, stacklevel=2)
        return False
    return True


def _lacking(error: Exception) -> str:
    return (
        f"Triton cannot run here, losses take their slower torch form: {type(error).__name__}: {error}\n"
        "Triton compiles its launcher with a C compiler and Python's headers: apt-get install gcc python3-dev,"
        " or name a compiler in the variable CC."
    )
