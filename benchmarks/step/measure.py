"""Two figures for each method.

The whole step against plain supervised training, in pairs; and the loss alone (its value and its gradient with respect
to the student's outputs), as a share of the supervised step: on a machine whose speed drifts by some per cent, only the
second can show a cost below that.
"""

import statistics
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks._shared.benchmark import check_names
from benchmarks._shared.clock import finish
from benchmarks._shared.imagenet import CLASSES
from benchmarks._shared.pairs import Pairs, alternate, say, seconds_of
from benchmarks._shared.training import one_rank, open_training
from benchmarks.step import Step
from pipeline.config import Files, Numerics, Optimisation, RunConfig, Running, Views
from pipeline.data.loader import Batch
from pipeline.devices.numerics import running_in
from pipeline.engine.step import build_train_step
from pipeline.methods._shared.registry import method_names
from pipeline.models.outputs import Outputs
from pipeline.models.spec import resolve_model
from pipeline.teachers.base import Teacher

_PER_CLASS = 1000  # samples
_FORMS: dict[str, tuple[str, dict[str, Any]]] = {"ctkd_instance": ("ctkd", {"mode": "instance"})}


@dataclass(frozen=True)
class StepFigures:
    """One method's figures.

    Attributes:
        pairs: steps per second with the method and with labels alone.
        loss_ms: milliseconds of the loss and its gradient to the student's outputs, median.
        share: of the supervised step.
    """

    pairs: Pairs
    loss_ms: float
    share: float


def check_settings(settings: Step) -> None:
    """Refuse methods and networks that nobody knows.

    Raises:
        ConfigError: with the nearest known name.
    """
    check_names("method", settings.methods, [*method_names(), *_FORMS])
    resolve_model(settings.student, role="student")
    resolve_model(f"{settings.teacher}@random", role="teacher")


def measure_steps(settings: Step) -> list[StepFigures]:
    """Every method against supervised training."""
    figures = []
    with ExitStack() as always:
        plain = _Training(always, "supervised", settings)
        for name in settings.methods:
            with ExitStack() as stack:
                training = _Training(stack, name, settings)
                pairs = alternate(name, "steps/s", training.speed, plain.speed, settings.repeats)
                loss_ms = training.loss_ms()
            share = loss_ms / 1000 * statistics.median(pairs.b)
            say(f"{name}: loss and gradient {loss_ms:.2f} ms, {100 * share:.2f} % of the supervised step")
            figures.append(StepFigures(pairs, loss_ms, share))
    return figures


class _Given(Teacher):
    """Teacher outputs that are there already."""

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs

    def outputs(self, batch: Batch, images: torch.Tensor) -> Outputs:
        return self._outputs

    def blank(self, pixels_BHWC: torch.Tensor, images: torch.Tensor) -> Outputs:
        return self._outputs


class _Training:
    """A student that is trained on one batch again and again; its data is closed with the stack."""

    def __init__(self, stack: ExitStack, method: str, settings: Step) -> None:
        world = one_rank()
        self._device, self._steps, self._amp = world.device, settings.steps, settings.amp
        training = stack.enter_context(open_training(_config(method, settings), world))
        (self._batch,) = training.next()
        networks = training.networks
        self._distiller, self._images = networks.distiller, networks.prepare(self._batch.images)
        teacher = networks.teacher
        self._taught = None if teacher is None else teacher.outputs(self._batch, self._images)
        given = None if self._taught is None else _Given(self._taught)
        step = build_train_step(training.config, replace(networks, teacher=given), training.order, world)
        self._step = partial(step, [self._batch])
        self._step()  # kernels chosen, buffers made

    def speed(self) -> float:
        """Steps per second over one window."""
        return self._steps / self._seconds(self._step, self._steps)

    def loss_ms(self) -> float:
        """Median milliseconds of the whole loss and its gradient with respect to the student's outputs."""
        with torch.no_grad(), running_in(self._device, self._amp):
            outputs: Outputs = self._distiller.student(self._images)
        embedding = None if outputs.embedding is None else _leaf(outputs.embedding)
        features = {name: _leaf(value) for name, value in outputs.features.items()}
        leaves = replace(outputs, logits=_leaf(outputs.logits), embedding=embedding, features=features)

        def differentiate() -> None:
            terms = self._distiller.terms(leaves, self._batch.labels, self._batch.ids, self._taught, 1)
            terms["loss"].backward()

        times = []
        for _ in range(12):
            self._distiller.zero_grad(set_to_none=True)
            for leaf in (leaves.logits, embedding, *features.values()):
                if leaf is not None:
                    leaf.grad = None  # a second gradient would be added to the first
            times.append(self._seconds(differentiate))
        return 1000 * statistics.median(times[2:])

    def _seconds(self, work: Any, count: int = 1) -> float:
        return seconds_of(work, count, wait=partial(finish, self._device))


def _leaf(value: torch.Tensor) -> torch.Tensor:
    return value.detach().clone().requires_grad_()


def _config(name: str, settings: Step) -> RunConfig:
    method, arguments = _FORMS.get(name, (name, {}))
    return RunConfig(
        recipe="step",
        student=settings.student,
        teacher=None if method == "supervised" else f"{settings.teacher}@random",
        method=method,
        method_args=arguments,
        files=Files(out=Path()),
        views=Views(resolution=settings.resolution),
        optimisation=Optimisation(lr=1e-3, schedule="constant", batch=settings.batch),
        numerics=Numerics(amp=settings.amp, teacher_precision="fp32" if settings.amp == "off" else settings.amp),
        running=Running(backend="synthetic", synthetic_samples=CLASSES * _PER_CLASS, synthetic_classes=CLASSES),
    )
