"""What a run would do and cost, before it costs anything: a few real steps that leave nothing behind."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from pipeline.config import RunConfig
from pipeline.core.command import Lines, Outcome
from pipeline.engine.distiller import describe_loss
from pipeline.engine.notes import say_cautions
from pipeline.engine.optim import learning_rate
from pipeline.engine.training import Training
from pipeline.jobs.console import RunConsole
from pipeline.teachers.base import Teacher

_WARM_STEPS, _TIMED_STEPS = 2, 4
_SHORT_LAG = 0.25  # of the time of launching a step: a device that is done so soon after it has waited for launches


@dataclass(frozen=True)
class _Timing:
    """How long steps took; how long the host took to launch the last one, and the device to be done after that."""

    num_steps: int
    seconds: float
    launch_s: float
    lag_s: float


def dry_run(training: Training) -> Outcome:
    """Run a few steps on real data, then print sizes, schedule, speed, hours and memory."""
    run, world = training.run, training.world
    config, order = run.config, run.order
    say_cautions(Lines(enabled=world.is_main), config, order, run.total_steps)
    timing = _time_steps(training)
    if not world.is_main:
        return "done"
    _say_if_launch_bound(training, timing)
    per_epoch, total = order.steps_per_epoch, run.total_steps
    rates = [f"{learning_rate(config.optimisation, step, per_epoch):.3g}" for step in (0, total // 2, total - 1)]
    rows = [
        ("train images, classes", f"{len(run.data.train.index):,}, {len(run.data.train.index.classes):,}"),
        ("val images", f"{len(run.data.val.index):,}"),
        ("student", f"{config.student}, {_millions(training.step.distiller.parameters())}"),
        ("teacher", _describe(config, training.networks.teacher)),
        ("loss", describe_loss(training.step.distiller.method.weights)),
        ("ranks, micro-batches", f"{world.size}, {order.num_micro_batches} of {order.micro_batch} images"),
        ("steps", f"{total:,} ({per_epoch:,} an epoch)"),
        ("learning rate", f"{rates[0]} at first, {rates[1]} half-way, {rates[2]} at last"),
        ("precision", f"student {config.numerics.amp}, teacher {config.numerics.teacher_precision}"),
        ("backend", f"{config.running.backend}, {world.threads} decoder thread(s) a rank"),
    ]
    if timing.num_steps:
        speed = timing.num_steps * order.batch / timing.seconds
        rows.append(("speed", f"{speed:,.0f} images/s over {timing.num_steps} step(s)"))
        rows.append(("training time", f"{total * order.batch / speed / 3600:,.2f} h, evaluations not counted"))
    if world.device.type == "cuda":
        rows.append(("device memory", f"{torch.cuda.max_memory_allocated(world.device) / 2**30:.1f} GiB at most"))
    console = RunConsole(enabled=True, total_steps=total, first_step=0, batch=order.batch)
    console.table(f"{config.recipe}: dry run, nothing was saved", rows)
    return "done"


def _time_steps(training: Training) -> _Timing:
    warm = min(_WARM_STEPS, training.run.total_steps - 1)
    timed = min(_TIMED_STEPS, training.run.total_steps - warm)
    with training.steps(0) as steps:
        for _ in range(warm):
            training.step(next(steps))
        _synchronise(training)
        training.world.barrier()
        started = time.perf_counter()
        asked = launched = started
        for _ in range(timed):
            micro_batches = next(steps)
            asked = time.perf_counter()
            training.step(micro_batches)
            launched = time.perf_counter()
        _synchronise(training)
        done = time.perf_counter()
        training.world.barrier()
    return _Timing(timed, time.perf_counter() - started, launched - asked, done - launched)


def _say_if_launch_bound(training: Training, timing: _Timing) -> None:
    images = training.run.order.micro_batch
    if training.world.device.type == "cuda" and timing.lag_s < _SHORT_LAG * timing.launch_s:
        Lines(enabled=True).warn(
            f"the device is likely to wait for the host: it has done a step {1000 * timing.lag_s:.1f} ms after it was"
            f" launched, and launching takes {1000 * timing.launch_s:.1f} ms (micro-batches of {images}"
            " images).\n"
            "Raise --batch (and --lr with it), lower --micro-batches, or try --cuda-graphs teacher or --compile."
        )


def _synchronise(training: Training) -> None:
    if training.world.device.type == "cuda":
        torch.cuda.synchronize(training.world.device)


def _describe(config: RunConfig, teacher: Teacher | None) -> str:
    if teacher is None:
        return "none"
    size = f", {teacher.num_parameters / 1e6:.2f} M parameters" if teacher.num_parameters else ""
    return f"{config.teacher}{size}, {config.teaching.teacher_source}"


def _millions(parameters: Iterator[torch.nn.Parameter]) -> str:
    return f"{sum(parameter.numel() for parameter in parameters) / 1e6:.2f} M parameters"
