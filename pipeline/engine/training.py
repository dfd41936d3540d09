"""A resolved run, opened: loaders, teacher, student and step."""

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice

from pipeline.data.backend import BackendOptions, DaliDecoding, open_backend
from pipeline.data.loader import Batch, Loader
from pipeline.data.plan import Plan
from pipeline.devices.numerics import set_kernels
from pipeline.devices.world import World
from pipeline.engine.networks import Networks, build_networks
from pipeline.engine.resolve import Run
from pipeline.engine.step import TrainStep, build_train_step
from pipeline.teachers.choice import StoredViews
from pipeline.teachers.foreign_pixels import check_pixels
from pipeline.teachers.staging import ViewStager
from pipeline.teachers.stored import RowFetcher


@dataclass(frozen=True)
class Training:
    """What a run steps through.

    Attributes:
        run: what was resolved.
        world: the ranks.
        loader: training views, with the teacher's rows where they are stored.
        val_loader: evaluation views.
        networks: student, method and teacher.
        step: the step, which holds all weights.
    """

    run: Run
    world: World
    loader: Loader
    val_loader: Loader
    networks: Networks
    step: TrainStep

    @contextmanager
    def steps(self, first: int) -> Iterator[Iterator[list[Batch]]]:
        """This rank's micro-batches of each step from `first` on; the loader ends with the block."""
        order, world = self.run.order, self.world
        num_own = len(order.deal(world.rank, world.size))
        batches: Generator[Batch, None, None] = self.loader.training(
            order, rank=world.rank, world_size=world.size, start_step=first, stop_step=self.run.total_steps
        )
        with closing(batches):
            yield iter(lambda: list(islice(batches, num_own)), [])


@contextmanager
def open_training(run: Run, world: World) -> Iterator[Training]:
    """Open all that a run needs, in this process as one of its ranks; kernels are chosen for the whole process.

    Raises:
        ConfigError: weights that do not fit, or a batch too small for BatchNorm.
        StoreError: the store's pixels are too different from this run's.
    """
    config = run.config
    set_kernels(deterministic=config.numerics.deterministic, precision=config.numerics.amp)
    stored = run.choice.stored
    with (
        closing(_open_loader(run, world, split="train", stored=stored)) as loader,
        closing(_open_loader(run, world, split="val")) as val_loader,
    ):
        if stored is not None:
            check_pixels(config, stored, run.data.train, loader, world)
        networks = build_networks(run, world)
        step = build_train_step(config, networks, run.order, world)
        step.settle(run.order.micro_batch, config.views.resolution)
        yield Training(run, world, loader, val_loader, networks, step)


def _open_loader(run: Run, world: World, *, split: str, stored: StoredViews | None = None) -> Loader:
    """The loader of "train" or "val" views; with `stored`, batches bring the teacher's rows along."""
    training, views, running = split == "train", run.config.views, run.config.running
    source = run.data.train if training else run.data.val
    backend = open_backend(
        run.data.train_backend if training else run.data.val_backend,
        source,
        BackendOptions(
            resolution=views.resolution if training else views.val_resolution or views.resolution,
            num_threads=world.threads,
            max_batch=run.order.micro_batch if training else running.eval_batch,
            device=str(world.device),
            on_bad_image=running.on_bad_image,
            prefetch=running.prefetch,
            dali=DaliDecoding.of(running),
        ),
    )
    plan = Plan(run.names.policy if training else run.names.val_policy, views.plan_seed)
    fetch = None if stored is None else _fetcher(run, stored, world)
    return Loader(source.index, plan, backend, world.device, views.num_views if training else 1, fetch)


def _fetcher(run: Run, stored: StoredViews, world: World) -> RowFetcher:
    folder, stager = run.config.files.stage, None
    if folder is not None:
        stager = ViewStager(stored.reader, folder, views=stored.views, num_views=run.config.views.num_views)
    pinned = world.device.type == "cuda"
    return RowFetcher(stored.reader, fields=stored.fields, views=stored.views, pinned=pinned, stager=stager)
