"""Triton's kernels compiled for CUDA machines that are not there, as the losses launch them.

A loss is called on the processor's tensors; where it would launch a kernel, Triton compiles it with the same arguments,
constants and options for a machine of the given compute capability, and the binary says what it takes.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from triton import JITFunction, knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

import pipeline.kernels
from pipeline.kernels import triton_kl, triton_philox, triton_probe
from tests.unit.kernels.triton_losses import ROWS, losses

KEPT = 20  # of a usual top-k store


@dataclass(frozen=True)
class Built:
    """A kernel as ptxas made it.

    Attributes:
        kernel: its module's name and its own.
        warps: of a program.
        registers: of a thread.
        stack: bytes of local memory of a thread: what did not fit into its registers is spilled there.
        ptx: its assembly.
    """

    kernel: str
    warps: int
    registers: int
    stack: int
    ptx: str


def kernels() -> dict[str, tuple[ModuleType, str]]:
    """Every kernel that some module of `pipeline.kernels` launches, by its module's and its own name."""
    names = [each.name for each in pkgutil.iter_modules(pipeline.kernels.__path__) if each.name.startswith("triton_")]
    modules = [importlib.import_module(f"pipeline.kernels.{name}") for name in names]
    return {
        f"{module.__name__.rpartition('.')[2]}.{kernel}": (module, kernel)
        for module in modules
        for kernel in sorted(_launched(module))
    }


def _launched(module: ModuleType) -> set[str]:
    """Names that the module's code launches, as in name[grid](...)."""
    calls = [node.func for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call)]
    names = [call.value.id for call in calls if isinstance(call, ast.Subscript) and isinstance(call.value, ast.Name)]
    return {name for name in names if isinstance(getattr(module, name), JITFunction)}


def launches(classes: int) -> dict[str, Callable[[], object]]:
    """By name, each call that launches a kernel: losses of a learned temperature, which do most, and KD as it runs."""
    student, teacher = (torch.zeros(ROWS, classes, dtype=torch.bfloat16) for _ in range(2))
    learned = torch.full((ROWS,), 4.0, requires_grad=True)
    calls = {name: partial(ours, student, teacher, learned) for name, (ours, _) in losses(classes, KEPT).items()}
    words = partial(triton_philox.triton_row_words, torch.arange(ROWS), 7, classes, 0, key=(2**32 - 1, 6))
    kd = partial(triton_kl.triton_kl, student.float(), teacher.float(), 4.0)
    return {"probe": triton_probe.launch, "philox": words, "kd": kd, **calls}


def build(launch: Callable[[], object], capability: int) -> list[Built]:
    """The kernels that `launch` launches, compiled for that compute capability and launched nowhere."""
    built: list[Built] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "_active", _NoMachine(capability))
        for name, (module, kernel) in kernels().items():
            patch.setattr(module, kernel, _Ahead(name, getattr(module, kernel), built))
        launch()
    return built


class _NoMachine:
    """What Triton asks a driver before it compiles."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)

    def get_current_device(self) -> int:
        return self._capability  # a number of its own: Triton keeps compiled kernels by it

    def get_current_stream(self, device: int) -> int:
        return 0


class _Ahead:
    """A kernel that is compiled where it would be launched."""

    def __init__(self, name: str, kernel: Any, built: list[Built]) -> None:
        self._name, self._kernel, self._built = name, kernel, built

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def compile_it(*arguments: Any, **options: Any) -> None:
            made = self._kernel.warmup(*arguments, grid=grid, **options)
            self._built.append(_built(self._name, made))

        return compile_it


def _built(name: str, made: Any) -> Built:
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(made.asm["cubin"])
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", str(binary)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", said)
    assert found, said
    registers, stack, local = (int(number) for number in found.groups())
    return Built(name, made.metadata.num_warps, registers, stack + local, made.asm["ptx"])
