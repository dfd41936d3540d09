"""On what a figure was measured."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pipeline.core.cpu import usable_cpus

_PACKAGES = ("torch", "torchvision", "nvidia-dali-cuda130", "ffcv", "numpy", "numba", "h5py", "triton")


def describe_machine() -> dict[str, Any]:
    """Processor, device, package versions and commit, as JSON."""
    return {
        "cpu": _cpu_model(),
        "usable_cpus": usable_cpus(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := package_version(name)) is not None},
        "commit": _commit(),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def package_version(package: str) -> str | None:
    """Of a distribution; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
