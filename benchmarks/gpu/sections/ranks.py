"""Two ranks, killed while they train and started again, end with the weights of two that were left alone."""

import time
from dataclasses import replace
from functools import partial

import torch

from benchmarks.gpu.findings import Outcome, Part, Setting, unproven
from benchmarks.gpu.jobs import Job, run_all, state_of
from benchmarks.gpu.sections.restart import small_run, verdict
from pipeline.config import RunConfig
from pipeline.jobs.checkpoint import find_latest

SECTION = (13, "two ranks, killed and restarted", 90)

_RANKS = 2
_LIMIT_S = 90.0


def parts(setting: Setting) -> list[Part]:
    """NCCL on GPUs, gloo on a processor."""
    return [Part("--deterministic, SIGKILL", partial(_killed, setting))]


def _killed(setting: Setting) -> Outcome:
    if setting.on_cuda and torch.cuda.device_count() < _RANKS:
        return unproven(f"needs {_RANKS} GPUs, there is {torch.cuda.device_count()}")
    steps = setting.pick(400, 200, 40)
    straight, killed = (_config(setting, name, steps) for name in ("straight-2", "killed-2"))
    run_all([Job(straight, ranks=_RANKS)], _LIMIT_S)
    half = _kill_after_a_checkpoint(killed)
    if half is None:
        return unproven("the run ended before it could be killed: it has too few steps")
    run_all([Job(killed, ranks=_RANKS)], _LIMIT_S)
    return verdict(half, state_of(straight.files.out), state_of(killed.files.out), promised=True)


def _config(setting: Setting, name: str, steps: int) -> RunConfig:
    config = small_run(setting, setting.work / name, deterministic=True, steps=steps)
    return replace(config, running=replace(config.running, checkpoint_every=steps // 4))


def _kill_after_a_checkpoint(config: RunConfig) -> dict[str, torch.Tensor] | None:
    """Start it, kill it when it has saved once, and return what it had saved; None where it was too fast."""
    job, ends = Job(config, ranks=_RANKS), time.monotonic() + _LIMIT_S
    latest = config.files.out / "checkpoints" / "latest.json"
    try:
        while job.runs and not latest.exists() and time.monotonic() < ends:
            time.sleep(0.01)
    finally:
        job.kill()
    state, _ = find_latest(config.files.out)
    if state is None:
        job.wait(0)  # says why
    if state is None or state["step"] >= (config.optimisation.max_steps or 0):
        return None
    return state_of(config.files.out)
