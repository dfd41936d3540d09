"""A run without its session: loader, networks and step as `fit` opens them, driven from outside."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from pipeline.config import RunConfig
from pipeline.core.cpu import decoder_threads
from pipeline.data.datasets import open_datasets
from pipeline.data.loader import Batch
from pipeline.data.order import Order
from pipeline.devices.world import World
from pipeline.engine import training
from pipeline.engine.networks import Networks
from pipeline.engine.resolve import resolve_names, resolve_values
from pipeline.engine.step import TrainStep


@dataclass(frozen=True)
class Training:
    """What `fit` steps through.

    Attributes:
        config: resolved.
        order: of its samples.
        networks: student, method and teacher.
        train_step: the step.
        steps: micro-batches of each step, from the loader.
    """

    config: RunConfig
    order: Order
    networks: Networks
    train_step: TrainStep
    steps: Iterator[list[Batch]]

    def next(self) -> list[Batch]:
        """The micro-batches of the next step."""
        return next(self.steps)

    def step(self) -> dict[str, torch.Tensor]:
        """Load and train one step."""
        return self.train_step(self.next())


def one_rank(device: torch.device | None = None) -> World:
    """A job of this process alone; on the first GPU where there is one and no device is named."""
    if device is None:
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    return World(0, 1, device, decoder_threads(1, launching=device.type == "cuda"))


@contextmanager
def open_training(config: RunConfig, world: World) -> Iterator[Training]:
    """Open data, teacher and student of a run that is not saved; closed at the end of the block.

    Kernels are chosen for the whole process, as by `fit`.
    """
    run = resolve_values(config, resolve_names(config), open_datasets(config, world), world)
    with training.open_training(run, world) as opened, opened.steps(0) as steps:
        yield Training(run.config, run.order, opened.networks, opened.step, steps)
