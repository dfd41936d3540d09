"""Every method and variant on the demo networks, built as a run builds them: what tests of methods share."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch

from launch.imagenet import all_recipes
from pipeline.config import Files, RunConfig
from pipeline.data.backend import Source
from pipeline.data.backends.synthetic import SyntheticBackend, synthetic_index
from pipeline.data.datasets import Datasets
from pipeline.data.index import Index
from pipeline.data.loader import Batch
from pipeline.data.order import Order
from pipeline.data.plan import PlanRows
from pipeline.devices.world import World
from pipeline.engine.networks import Networks, build_networks
from pipeline.engine.resolve import resolve_names, resolve_values
from pipeline.engine.step import TrainStep, build_train_step
from pipeline.losses._shared.registry import loss_record, loss_type
from pipeline.methods._shared.registry import method_names

ALONE = World(0, 1, torch.device("cpu"), 1)
SIDE, CLASSES, SAMPLES, MICRO_BATCH = 64, 7, 70, 8

# what makes a method fast on the demo networks; a method that is not here runs with its defaults
_SMALL: dict[str, dict[str, Any]] = {
    "crd": {"num_negatives": 30, "feature_dim": 8},
    "reviewkd": {"mid_channels": 8},
    "simkd": {"factor": 4},
}
_VARIANTS: dict[str, list[dict[str, Any]]] = {
    "kd": [{"form": "cross_entropy"}],
    "lskd": [{"base": "dkd"}],
    "srrl": [{"form": "pooled"}],
    "ctkd": [{"mode": "instance"}, {"mode": "instance", "base": "dkd"}, {"schedule": "linear"}]
    + [{"base": base, "base_args": _SMALL.get(base, {})} for base in ("dkd", "pkt", "sp", "vid", "crd", "srrl")],
}


@dataclass(frozen=True)
class Case:
    """A method with hyper-parameters."""

    method: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = [str(value) for name, value in self.arguments.items() if isinstance(value, str)]
        return "-".join([self.method, *shown])

    @property
    def all_arguments(self) -> dict[str, Any]:
        return {**_SMALL.get(self.method, {}), **self.arguments}


CASES = [Case(name, arguments) for name in method_names() for arguments in ({}, *_VARIANTS.get(name, []))]


def choices_of(method: str) -> list[Case]:
    """One case for each value that the record offers beside a default."""
    kind = loss_type(method)
    return [
        Case(method, {name: choice})
        for name, hint in get_type_hints(kind).items()
        if get_origin(hint) is Literal
        for choice in get_args(hint)
        if choice != getattr(kind, name)
    ]


CHOICES = [case for name in method_names() for case in choices_of(name) if case not in CASES]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For tests on tiny tensors: on a crowded machine, threads wait for each other far longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config_of(case: Case, *, run_seed: int = 0, micro_batches: int = 1, amp: str = "off") -> RunConfig:
    """A run of the case on random pixels."""
    config: RunConfig = all_recipes()["smoke"](Files(out=Path("run")))
    optimisation = replace(
        config.optimisation,
        batch=MICRO_BATCH * micro_batches,
        micro_batches=micro_batches,
        run_seed=run_seed,
        schedule="constant",
    )
    return replace(
        config,
        method=case.method,
        method_args=case.all_arguments,
        teacher=config.teacher if loss_record(case.method, case.all_arguments).needs.teacher else None,
        optimisation=optimisation,
        views=replace(config.views, resolution=SIDE),
        numerics=replace(config.numerics, amp=amp, teacher_precision="fp32", channels_last=False),
    )


def index() -> Index:
    """Samples whose classes are contiguous, as a scanned folder's are."""
    whole = synthetic_index(SAMPLES, CLASSES)
    return replace(whole, labels=np.sort(whole.labels))


def networks_of(config: RunConfig, world: World = ALONE) -> Networks:
    """Student, method and a random teacher; the teacher is the same for every run seed."""
    source = Source(index())
    data = Datasets(source, source, SyntheticBackend, SyntheticBackend)
    return build_networks(resolve_values(config, resolve_names(config), data, world), world)


def train_step_of(case: Case, world: World, *, micro_batches: int) -> tuple[TrainStep, Order]:
    """The step of a run of the case."""
    config = config_of(case, micro_batches=micro_batches)
    order = Order(np.arange(SAMPLES), 0, MICRO_BATCH, micro_batches)
    return build_train_step(config, networks_of(config, world), order, world), order


def batch_of(step: int = 0, number: int = 0, *, num_micro_batches: int = 1) -> Batch:
    """A micro-batch of random pixels, a function of its place alone; no sample comes twice in an epoch."""
    generator = torch.Generator().manual_seed(1000 * step + number)
    images = torch.randint(256, (MICRO_BATCH, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
    first = (step * num_micro_batches + number) * MICRO_BATCH
    ids = (np.arange(first, first + MICRO_BATCH) * 3) % SAMPLES
    labels = torch.from_numpy(index().labels[ids].astype(np.int64))
    rows = PlanRows(ids, np.zeros_like(ids), np.zeros((MICRO_BATCH, 4), np.int32), np.zeros(MICRO_BATCH, bool))
    return Batch(step, 0, number, rows, images, labels, torch.from_numpy(ids), (), 0.0)


def terms_of(networks: Networks, batch: Batch, *, epoch: int = 0) -> dict[str, torch.Tensor]:
    """One forward pass of student and method."""
    images = networks.prepare(batch.images)
    teacher = None if networks.teacher is None else networks.teacher.outputs(batch, images)
    terms: dict[str, torch.Tensor] = networks.distiller(images, batch.labels, batch.ids, teacher, epoch)
    return terms
