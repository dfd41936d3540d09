"""What a method adds to a training step: the same student, optimiser and batch, with the teacher's outputs given.

Two figures for each method. The whole step against plain supervised training, in pairs; and the loss alone (its value
and its gradient with respect to the student's outputs), as a share of the supervised step: on a machine whose speed
drifts by some per cent, only the second can show a cost below that.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks.checks import check_names
from benchmarks.pairs import Pairs, alternate
from pipeline.config import Optimisation
from pipeline.data.loader import Batch
from pipeline.data.plan import PlanRows
from pipeline.devices.numerics import running_in
from pipeline.devices.world import World
from pipeline.engine.distiller import Distiller, StudentNumerics
from pipeline.engine.optim import build_optimizer
from pipeline.engine.step import TrainStep
from pipeline.methods.base import Method, Setting
from pipeline.methods.registry import build_method, method_names
from pipeline.models.measures import head_values, map_shapes, norm_values
from pipeline.models.network import Network
from pipeline.models.outputs import Outputs
from pipeline.models.spec import parse_spec
from pipeline.models.zoo import build_network, check_spec
from pipeline.teachers.base import Teacher
from pipeline.teachers.runner import TeacherRunner

_NUM_CLASSES, _PER_CLASS = 1000, 1000
_NOT_MAPS = frozenset({"logits", "embedding", "head"})
FROM_LOGITS = ("kd", "dkd", "ctkd", "ctkd_instance", "dist", "nkd", "lskd")  # what stored logits serve
_FORMS: dict[str, tuple[str, dict[str, Any]]] = {"ctkd_instance": ("ctkd", {"mode": "instance"})}


@dataclass(frozen=True)
class StepSettings:
    """What is measured.

    Attributes:
        methods: names of distillation methods, and ctkd_instance.
        student: NAME.
        teacher: NAME; random weights.
        resolution: side of the images.
        batch: images of a step.
        amp: "off", "bf16" or "fp16".
        steps: steps of a timed window.
        repeats: pairs of windows.
    """

    methods: tuple[str, ...]
    student: str
    teacher: str
    resolution: int
    batch: int
    amp: str
    steps: int
    repeats: int


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

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        return {**self.pairs.to_json(), "loss_ms": self.loss_ms, "share": self.share}


def check_settings(settings: StepSettings) -> None:
    """Refuse methods and networks that nobody knows.

    Raises:
        ConfigError: with the nearest known name.
    """
    check_names("method", settings.methods, [*method_names(), *_FORMS])
    check_spec(parse_spec(settings.student), role="student")
    check_spec(parse_spec(f"{settings.teacher}@random"), role="teacher")


def measure_steps(settings: StepSettings, say: Callable[[str], None]) -> list[StepFigures]:
    """Every method against supervised training."""
    world = _world()
    plain = _Training(build_method("supervised", {}), settings, world)
    figures = []
    for name in settings.methods:
        training = _Training(build_method(*_FORMS.get(name, (name, {}))), settings, world)
        pairs = alternate(name, "steps/s", training.speed, plain.speed, settings.repeats, say)
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
    """A student that is trained on one batch again and again."""

    def __init__(self, method: Method, settings: StepSettings, world: World) -> None:
        self._settings, self._world = settings, world
        student = build_network(
            parse_spec(settings.student), num_classes=_NUM_CLASSES, seed=0, taps=method.needs.student, role="student"
        )
        teacher = _teacher(method, settings)
        method.build(_setting(method, student, teacher, settings))
        numerics = StudentNumerics(world.device, settings.amp, 0.0)
        module = method.student_network(student)
        self._distiller = Distiller(module, method, numerics, compiled=False)  # type: ignore[arg-type]
        self._distiller.to(device=world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._batch = _batch(settings, world)
        given = None if teacher is None else _Given(_outputs_of(teacher, self._batch.images, settings, world))
        self._given = given
        optimisation = Optimisation(lr=1e-3, schedule="constant", batch=settings.batch)
        self._step = TrainStep(
            distiller=self._distiller,
            teacher=given,
            prepare=lambda images: images,
            optimizer=build_optimizer(self._distiller, optimisation, world.device),
            config=optimisation,
            steps_per_epoch=1000,
            num_own=1,
            num_all=1,
            world=world,
            amp=settings.amp,
            average=None,
        )
        self._step([self._batch])  # kernels chosen, buffers made

    def speed(self) -> float:
        """Steps per second over one window."""
        _finish(self._world)
        started = time.perf_counter()
        for _ in range(self._settings.steps):
            self._step([self._batch])
        _finish(self._world)
        return self._settings.steps / (time.perf_counter() - started)

    def loss_ms(self) -> float:
        """Median milliseconds of the whole loss and its gradient with respect to the student's outputs."""
        with torch.no_grad(), running_in(self._world.device, self._settings.amp):
            outputs: Outputs = self._distiller.student(self._batch.images)
        embedding = None if outputs.embedding is None else _leaf(outputs.embedding)
        features = {name: _leaf(value) for name, value in outputs.features.items()}
        leaves = replace(outputs, logits=_leaf(outputs.logits), embedding=embedding, features=features)
        taught, batch = (
            None if self._given is None else self._given.outputs(self._batch, self._batch.images),
            self._batch,
        )
        times = []
        for _ in range(12):
            self._distiller.zero_grad(set_to_none=True)
            for leaf in (leaves.logits, embedding, *features.values()):
                if leaf is not None:
                    leaf.grad = None  # a second gradient would be added to the first
            _finish(self._world)
            started = time.perf_counter()
            self._distiller.terms(leaves, batch.labels, batch.ids, taught, 1)["loss"].backward()
            _finish(self._world)
            times.append(time.perf_counter() - started)
        return 1000 * statistics.median(times[2:])


def _leaf(value: torch.Tensor) -> torch.Tensor:
    return value.detach().clone().requires_grad_()


def _teacher(method: Method, settings: StepSettings) -> Network | None:
    if not method.needs.teacher:
        return None
    taps = method.needs.teacher - _NOT_MAPS
    spec = parse_spec(f"{settings.teacher}@random")
    return build_network(spec, num_classes=_NUM_CLASSES, seed=0, taps=taps, role="teacher")


def _setting(method: Method, student: Network, teacher: Network | None, settings: StepSettings) -> Setting:
    side = settings.resolution
    return Setting(
        student_dim=student.embedding_dim,
        num_classes=_NUM_CLASSES,
        student_maps=map_shapes(student, side),
        teacher_maps={} if teacher is None else map_shapes(teacher, side),
        teacher_dim=None if teacher is None else teacher.embedding_dim,
        class_counts=(_PER_CLASS,) * _NUM_CLASSES,
        micro_batch=settings.batch,
        head=None if teacher is None else head_values(teacher),
        teacher_norms={} if teacher is None else {tap: norm_values(teacher, tap) for tap in method.needs.norms},
    )


def _outputs_of(teacher: Network, images: torch.Tensor, settings: StepSettings, world: World) -> Outputs:
    precision = {"off": "fp32"}.get(settings.amp, settings.amp)
    online = TeacherRunner(
        teacher,
        device=world.device,
        precision=precision,
    )
    return online.forward(images)


def _batch(settings: StepSettings, world: World) -> Batch:
    num, side = settings.batch, settings.resolution
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(num, 3, side, side, generator=generator).to(world.device, memory_format=torch.channels_last)
    labels = torch.randint(_NUM_CLASSES, (num,), generator=generator)
    ids = labels * _PER_CLASS + torch.arange(num)
    rows = PlanRows(ids.numpy(), np.zeros(num, np.int64), np.zeros((num, 4), np.int32), np.zeros(num, bool))
    return Batch(0, 0, 0, rows, images, labels.to(world.device), ids.to(world.device), (), 0.0)


def _world() -> World:
    return World(0, 1, torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"), 1)


def _finish(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize()
