"""What is installed, and whether Triton can build a kernel here."""

import os
import shutil
import subprocess
import sysconfig
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.findings import Outcome, Part, Setting, check, measured, needs_cuda, unproven
from pipeline.data.backend import resolve_backend
from pipeline.kernels.dispatch import use_triton

SECTION = (1, "compiler and versions", 30)


def parts(setting: Setting) -> list[Part]:
    """Versions, the compiler, Triton, and what is missing."""
    return [
        Part("versions", partial(_versions, setting)),
        Part("compiler for Triton", _compiler),
        *needs_cuda(setting, [Part("Triton runs", partial(_triton, setting))]),
        Part("DALI and FFCV", _libraries),
    ]


def _versions(setting: Setting) -> Outcome:
    found: dict[str, Any] = {
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if setting.on_cuda else None,
        "driver": _driver(),
        "python headers": (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file(),
    }
    if setting.on_cuda:
        about = torch.cuda.get_device_properties(setting.device)
        found |= {"gpus": torch.cuda.device_count(), "multiprocessors": about.multi_processor_count}
        found |= {"capability": f"{about.major}.{about.minor}", "memory_gib": round(about.total_memory / 2**30, 1)}
    return measured(", ".join(f"{name} {value}" for name, value in found.items()), **found)


def _compiler() -> Outcome:
    """Triton's launchers are C programs that include Python.h."""
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))), None)
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if compiler is None or not headers.is_file():
        lacking = "no C compiler" if compiler is None else f"no {headers}"
        return unproven(f"{lacking}: losses take their torch form")
    return measured(f"{compiler}, {headers}")


def _triton(setting: Setting) -> Outcome:
    """The project's own question, asked for logits as a loss asks it."""
    chosen = use_triton(torch.zeros(2, 10, device=setting.device))
    return check(chosen, "losses go to Triton" if chosen else "losses take their torch form: see the section's log")


def _libraries() -> Outcome:
    reasons = {name: resolve_backend(name).missing() for name in ("dali", "ffcv")}
    absent = [name for name, reason in reasons.items() if reason is not None]
    return measured(f"not installed: {', '.join(absent)}" if absent else "both installed", missing=reasons)


def _driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None
