"""Stopped half way and started again in a new process, a run ends with the bits of one that went straight through.

Under --deterministic that is promised; without it, it is said whether it happened.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.findings import Outcome, Part, Setting, check, measured
from benchmarks.gpu.jobs import Job, differing, run_all, state_of
from pipeline.config import Files, Numerics, Optimisation, RunConfig, Running, Views

SECTION = (7, "a restarted run is the same run", 90)

Tensors = dict[str, torch.Tensor]
_LIMIT_S = 60.0


def parts(setting: Setting) -> list[Part]:
    """The promise, and the information."""
    return [
        Part("--deterministic", partial(_restart, setting, deterministic=True)),
        Part("without it", partial(_restart, setting, deterministic=False)),
    ]


def small_run(setting: Setting, out: Path, *, deterministic: bool, steps: int) -> RunConfig:
    """KD of ResNet-34 to ResNet-18 on small synthetic images, in CUDA's default precisions."""
    batch, (student, teacher) = setting.pick(64, 64, 8), setting.models
    return RunConfig(
        recipe="gpu",
        student=student,
        teacher=teacher,
        method="kd",
        files=Files(out=out),
        views=Views(resolution=setting.pick(64, 64, 32), policy="demo_train"),
        optimisation=Optimisation(epochs=1000, batch=batch, lr=1e-3, schedule="constant", max_steps=steps),
        numerics=Numerics(deterministic=deterministic),
        running=Running(
            backend="synthetic",
            device="cuda" if setting.on_cuda else "cpu",
            threads=1,
            eval_batch=batch,
            eval_every=1000,
            log_every=1,
            synthetic_samples=40 * batch,
            synthetic_classes=10,
        ),
    )


def verdict(half: Tensors, straight: Tensors, restarted: Tensors, *, promised: bool) -> Outcome:
    """Of three states: at the restart, and at both ends."""
    names = differing(straight, restarted)
    moved = [name for name in differing(half, straight) if name.startswith("/module")]
    if not moved:
        return Outcome("failed", "no weight has moved between the restart and the end: the device computes nothing")
    text = f"{len(names)} of {len(straight)} tensors differ" if names else f"all {len(straight)} tensors are equal"
    text += f" ({', '.join(names[:3])}, ...)" if names else ""
    return check(not names, text, differing=names) if promised else measured(text, differing=names)


def _restart(setting: Setting, *, deterministic: bool) -> Outcome:
    steps = setting.pick(20, 8, 4)
    folder = setting.work / ("fixed" if deterministic else "free")
    folder.mkdir()
    run = partial(small_run, setting, deterministic=deterministic)
    straight, restarted = (run(folder / name, steps=steps) for name in ("straight", "restarted"))
    run_all([Job(straight), Job(run(restarted.files.out, steps=steps // 2))], _LIMIT_S)
    half = state_of(restarted.files.out)
    run_all([Job(restarted)], _LIMIT_S)
    outcome = verdict(half, state_of(straight.files.out), state_of(restarted.files.out), promised=deterministic)
    return replace(outcome, text=f"{outcome.text}; {steps} steps, restarted after {steps // 2}")
