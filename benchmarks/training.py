"""A run without its session: loader, networks and step as `fit` builds them, driven from outside."""

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice

import torch

from pipeline.config import RunConfig
from pipeline.core.cpu import decoder_threads
from pipeline.data.datasets import open_datasets
from pipeline.data.loader import Batch
from pipeline.data.order import Order
from pipeline.data.policies.registry import get_policy
from pipeline.devices.numerics import set_kernels
from pipeline.devices.world import World
from pipeline.engine.networks import Networks, build_networks
from pipeline.engine.resolve import resolve
from pipeline.engine.step import TrainStep, build_train_step
from pipeline.fit import build_loader, build_order
from pipeline.methods.registry import build_method
from pipeline.teachers.choice import choose_teacher


@dataclass(frozen=True)
class Training:
    """What `fit` steps through.

    Attributes:
        config: resolved.
        order: of its samples.
        networks: student, method and teacher.
        train_step: the step.
        batches: micro-batches from the loader, without end.
    """

    config: RunConfig
    order: Order
    networks: Networks
    train_step: TrainStep
    batches: Generator[Batch, None, None]

    def next(self) -> list[Batch]:
        """The micro-batches of the next step."""
        return list(islice(self.batches, self.order.num_micro_batches))

    def step(self) -> dict[str, torch.Tensor]:
        """Load and train one step."""
        return self.train_step(self.next())


def one_rank(device: torch.device) -> World:
    """A job of this process alone."""
    return World(0, 1, device, decoder_threads(1, launching=device.type == "cuda"))


@contextmanager
def open_training(config: RunConfig, world: World) -> Iterator[Training]:
    """Open data, teacher and student of a run that is not saved; closed at the end of the block.

    Kernels are chosen for the whole process, as by `fit`.
    """
    data = open_datasets(config, world)
    method, policy = build_method(config.method, config.method_args), get_policy(config.views.policy)
    choice = choose_teacher(config, method, policy, None, data.train.index, world)
    config = resolve(config, None, data, choice, world)
    set_kernels(deterministic=config.numerics.deterministic, precision=config.numerics.amp)
    order = build_order(config, data)
    loader = build_loader(config, data, world, order, split="train", stored=choice.stored)
    networks = build_networks(config, choice, index=data.train.index, world=world)
    train_step = build_train_step(config, networks, order, world)
    with closing(loader):
        batches = loader.training(order, rank=0, world_size=1, start_step=0, stop_step=10**9)
        with closing(batches):
            yield Training(config, order, networks, train_step, batches)
