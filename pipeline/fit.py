"""A whole training job, in the order in which it happens.

dataset index   --order-->   sample ids, dealt to ranks by micro-batch
ids, views      --plan-->    boxes, flips
ids + plan      --backend--> pixels --to device, normalise--> batch
ids, views      --store----> the teacher's rows, while pixels are decoded
batch           --teacher--> teacher outputs: rows decoded, or the network run
batch + outputs --one module: student + method--> loss terms --> optimiser step
"""

import os
from collections.abc import Generator
from contextlib import closing, nullcontext
from itertools import islice
from pathlib import Path

from pipeline.config import RunConfig, check_config
from pipeline.core.errors import PeerError, RefluxError
from pipeline.data.backends.base import BackendOptions, DaliDecoding
from pipeline.data.backends.registry import open_backend
from pipeline.data.datasets import Datasets, open_datasets
from pipeline.data.loader import Batch, Loader
from pipeline.data.order import Order
from pipeline.data.plan import Plan
from pipeline.data.policies.registry import get_policy
from pipeline.devices.numerics import set_kernels
from pipeline.devices.world import World, start_world, stop_world
from pipeline.engine.checkpoint import find_latest
from pipeline.engine.dry_run import dry_run
from pipeline.engine.networks import build_networks, check_names
from pipeline.engine.resolve import as_begun, resolve
from pipeline.engine.run_directory import (
    Attempt,
    check_fingerprints,
    fingerprints,
    is_same_run,
    read_saved_config,
    remove_failed_start,
    save_config,
    scratch_folder,
    with_remedy,
)
from pipeline.engine.run_lock import RunLock
from pipeline.engine.session import Job, Outcome, Session
from pipeline.engine.signals import StopRequest
from pipeline.engine.step import build_train_step
from pipeline.methods.registry import build_method
from pipeline.teachers.choice import StoredViews, choose_teacher
from pipeline.teachers.foreign_pixels import check_pixels
from pipeline.teachers.staging import ViewStager
from pipeline.teachers.stored import RowFetcher


def fit(config: RunConfig) -> Outcome:
    """Run the job that `config` describes, or go on with it, in this process as one of its ranks.

    Returns:
        "done", or "preempted" when a signal asked for an early end and a checkpoint is durable.

    Raises:
        RefluxError: anything a user can mend; RUN/state.json says the same, once the command is known to be that run's.
    """
    run, rank = config.files.out, int(os.environ.get("RANK", "0"))
    saved = _read_saved_config(run, rank)
    stop = StopRequest()
    stop.install()
    attempt, lock = Attempt(run, rank, muted=config.running.dry_run), RunLock(run)
    try:
        if rank == 0 and not config.running.dry_run:
            lock.take()
        if saved is None and lock.refusal is None:
            attempt.accept()
        check_config(config)
        check_names(config)
        world = start_world(config.running.device, config.running.threads)
        _check_lock(lock, attempt, world)
        saved = _read_saved_config(run, rank)  # again: until the lock was had, another start may have written it
        config = as_begun(config, saved, world)
        with scratch_folder(world, run) if config.running.dry_run else nullcontext(run) as folder:
            data = open_datasets(config, world, folder)
            outcome = _fit(config, saved, data, stop, world, attempt)
    except BaseException as error:
        failure = with_remedy(error, run)
        attempt.note_failure(failure)
        if failure is error:
            raise
        raise failure from error
    finally:
        lock.release()
    stop_world(world)
    return outcome


def _check_lock(lock: RunLock, attempt: Attempt, world: World) -> None:
    """End every rank of a start whose main rank did not get the run's lock. A collective call."""
    if world.gather(lock.refusal is not None)[0]:
        attempt.mute()
        raise lock.refusal or PeerError("rank 0 was refused the run's lock, and says it")


def _read_saved_config(run: Path, rank: int) -> RunConfig | None:
    try:
        return read_saved_config(run)
    except RefluxError as error:
        if rank == 0:
            raise
        raise PeerError("rank 0 finds the same, and says it") from error


def _fit(
    config: RunConfig, saved: RunConfig | None, data: Datasets, stop: StopRequest, world: World, attempt: Attempt
) -> Outcome:
    asked, run = config, config.files.out
    method, policy = build_method(asked.method, asked.method_args), get_policy(asked.views.policy)
    choice = choose_teacher(asked, method, policy, saved, data.train.index, world)
    config = resolve(asked, saved, data, choice, world)
    begins_anew = saved is not None and not is_same_run(saved, config, run, world)
    if begins_anew:
        choice = choose_teacher(asked, method, policy, None, data.train.index, world)
        config = resolve(asked, None, data, choice, world)

    set_kernels(deterministic=config.numerics.deterministic, precision=config.numerics.amp)
    order = build_order(config, data)
    num_own = len(order.deal(world.rank, world.size))
    total_steps = order.steps_per_epoch * config.optimisation.epochs
    total_steps = min(total_steps, config.optimisation.max_steps or total_steps)

    with (
        closing(build_loader(config, data, world, order, split="train", stored=choice.stored)) as train_loader,
        closing(build_loader(config, data, world, order, split="val")) as val_loader,
    ):
        if choice.stored is not None:
            check_pixels(config, choice.stored, data.train, train_loader, world)
        networks = build_networks(config, choice, index=data.train.index, world=world)
        train_step = build_train_step(config, networks, order, world)
        train_step.settle(order.micro_batch, config.views.resolution)
        state, problems = find_latest(config.files.out)
        if state is not None:
            check_fingerprints(state, fingerprints(data, choice))
        world.barrier()  # no rank has found anything against it
        attempt.accept()
        if begins_anew and not config.running.dry_run:
            world.main_first(lambda: remove_failed_start(run))
        job = Job(config, world, data, choice, order, val_loader, networks.prepare, train_step, stop, total_steps)
        if config.running.dry_run:
            with closing(_training(job, train_loader, 0)) as batches:
                dry_run(job, batches, num_own, networks.teacher)
            return "done"
        world.main_first(lambda: save_config(config, config.files.out))
        with Session(job, state, problems) as session:
            with closing(_training(job, train_loader, session.step)) as batches:
                while session.goes_on():
                    micro_batches = list(islice(batches, num_own))
                    terms = train_step(micro_batches)
                    session.record(micro_batches, terms)
            return session.finish()


def build_order(config: RunConfig, data: Datasets) -> Order:
    """The order of a resolved configuration's training."""
    num_micro_batches = config.optimisation.micro_batches
    assert num_micro_batches is not None, "resolve() has set it"
    return Order(
        ids=data.train.index.ids,
        run_seed=config.optimisation.run_seed,
        micro_batch=config.optimisation.batch // num_micro_batches,
        num_micro_batches=num_micro_batches,
    )


def _training(job: Job, loader: Loader, start_step: int) -> Generator[Batch, None, None]:
    world, stop_step = job.world, job.total_steps
    return loader.training(
        job.order, rank=world.rank, world_size=world.size, start_step=start_step, stop_step=stop_step
    )


def build_loader(
    config: RunConfig,
    data: Datasets,
    world: World,
    order: Order,
    *,
    split: str,
    stored: StoredViews | None = None,
) -> Loader:
    """The loader of "train" or "val" views; close it. With `stored`, batches bring the teacher's rows along."""
    training, views, running = split == "train", config.views, config.running
    source = data.train if training else data.val
    backend = open_backend(
        data.train_backend if training else data.val_backend,
        source,
        BackendOptions(
            resolution=views.resolution if training else views.val_resolution or views.resolution,
            num_threads=world.threads,
            max_batch=order.micro_batch if training else running.eval_batch,
            device=str(world.device),
            on_bad_image=running.on_bad_image,
            prefetch=running.prefetch,
            dali=DaliDecoding.of(running),
        ),
    )
    plan = Plan(get_policy(views.policy if training else views.val_policy), views.plan_seed)
    fetch = None if stored is None else _fetcher(config, stored, world)
    return Loader(source.index, plan, backend, world.device, views.num_views if training else 1, fetch)


def _fetcher(config: RunConfig, stored: StoredViews, world: World) -> RowFetcher:
    folder, stager = config.files.stage, None
    if folder is not None:
        stager = ViewStager(stored.reader, folder, views=stored.views, num_views=config.views.num_views)
    pinned = world.device.type == "cuda"
    return RowFetcher(stored.reader, fields=stored.fields, views=stored.views, pinned=pinned, stager=stager)
