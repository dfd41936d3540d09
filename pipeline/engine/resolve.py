"""From flags to objects, once: every name becomes what it names, every "auto" what it stands for here.

Below here nobody parses a name, and a restart elsewhere cannot find that "auto" means something else.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.config import Amp, Optimisation, RunConfig, check_config, check_divides
from pipeline.core.command import said_once
from pipeline.core.errors import ConfigError
from pipeline.data.backend import check_backend
from pipeline.data.dali_decoder import as_begun
from pipeline.data.datasets import Datasets, open_datasets
from pipeline.data.order import Order
from pipeline.data.policy import Policy, get_policy
from pipeline.devices.numerics import teacher_precision
from pipeline.devices.world import World
from pipeline.jobs.open import Job
from pipeline.jobs.run_folder import is_same_run, read_saved_config
from pipeline.methods._shared.method import Method
from pipeline.methods._shared.registry import build_method
from pipeline.models.spec import ModelSpec, parse_spec, resolve_model
from pipeline.teachers.choice import TeacherChoice, choose_teacher


@dataclass(frozen=True)
class Names:
    """What a configuration's names name.

    Attributes:
        method: with its weights; its trainable parts are not built yet.
        student: the model that learns.
        teacher: the model that may teach; None where none was named.
        policy: augmentation of the training views.
        val_policy: the evaluation view.
    """

    method: Method[Any]
    student: ModelSpec
    teacher: ModelSpec | None
    policy: Policy
    val_policy: Policy


@dataclass(frozen=True)
class Run:
    """A run in which nothing is left to decide.

    Attributes:
        config: without "auto" in it, as it is saved.
        names: what its names name.
        data: the opened data sets.
        choice: where teacher outputs come from.
        order: of training.
        begins_anew: whether it takes the place of a start that failed before its first checkpoint.
    """

    config: RunConfig
    names: Names
    data: Datasets
    choice: TeacherChoice
    order: Order
    begins_anew: bool = False

    @property
    def fingerprints(self) -> dict[str, str | None]:
        """What is read, for checkpoints: the two data sets, and the store."""
        return {
            "train": self.data.train.index.fingerprint,
            "val": self.data.val.index.fingerprint,
            "store": self.choice.store_fingerprint,
        }

    @property
    def total_steps(self) -> int:
        """Where the run ends."""
        steps = self.order.steps_per_epoch * self.config.optimisation.epochs
        return min(steps, self.config.optimisation.max_steps or steps)


def resolve(config: RunConfig, job: Job) -> Run:
    """The run that `config` describes, or the one that lives in its folder and goes on. A collective call.

    Raises:
        ConfigError: values, names, flags that do not belong together; or the folder holds another run.
        DataError: folders, files or indexes.
        StoreError: the store is of other data, views or format.
    """
    with said_once():
        check_config(config)
    names = resolve_names(config)  # weights, stores and packages may be missing on one machine alone: each rank says it
    world, folder = job.join(config.running.device, config.running.threads), config.files.out
    with said_once():  # now that the lock is had: until then, another start may have written it
        saved = read_saved_config(folder)
    config = _as_begun(config, saved, world)
    data = open_datasets(config, world, job.folder)
    run = resolve_values(config, names, data, world, saved)
    if saved is None or is_same_run(saved, run.config, folder, world):
        return run
    return replace(resolve_values(config, names, data, world), begins_anew=True)


def resolve_names(config: RunConfig) -> Names:
    """Look up all names, before any data is looked at; graphs without a device to run them are refused too.

    Raises:
        ConfigError: with what is known; or a teacher or store that is missing or not needed.
    """
    method, named_store = build_method(config.method, config.method_args), config.files.store
    if method.needs.teacher and config.teacher is None:
        raise ConfigError(f"method '{config.method}' needs a teacher: give --teacher NAME@WEIGHTS")
    for flag, value in (("--teacher", config.teacher), ("--store", named_store)):
        if not method.needs.teacher and value is not None:
            raise ConfigError(f"method '{config.method}' learns from labels alone: leave out {flag} {value}")
    student = resolve_model(config.student, role="student")
    teacher = None if config.teacher is None else parse_spec(config.teacher, role="teacher")
    if teacher is not None and named_store is None:  # with a store it may never be run
        teacher.check()
    check_backend(config.running.backend, has_beton=config.files.beton is not None)
    _check_store(named_store)
    policy, val_policy = get_policy(config.views.policy), get_policy(config.views.val_policy)
    if config.numerics.cuda_graphs != "off" and not (config.running.device != "cpu" and torch.cuda.is_available()):
        raise ConfigError("--cuda-graphs teacher needs a CUDA device, and this run has none: leave the flag out")
    return Names(method, student, teacher, policy, val_policy)


def resolve_values(
    config: RunConfig, names: Names, data: Datasets, world: World, saved: RunConfig | None = None
) -> Run:
    """Decide where teacher outputs come from, and replace every default that depends on this machine or job.

    Args:
        config: from the command line.
        names: its.
        data: the opened data sets.
        world: the ranks.
        saved: the run's own, where it is continued: what was decided at its first start is taken from it.

    Raises:
        ConfigError: the batch cannot be divided.
    """
    choice = choose_teacher(config, names.method.loss, names.policy, saved, data.train.index, world)
    config = _without_auto(config, saved, data, choice, world)
    micro_batches = config.optimisation.micro_batches or world.size
    order = Order(
        ids=data.train.index.ids,
        run_seed=config.optimisation.run_seed,
        micro_batch=config.optimisation.batch // micro_batches,
        num_micro_batches=micro_batches,
    )
    return Run(config, names, data, choice, order)


def _check_store(store: Path | None) -> None:
    if store is not None and not store.is_dir():
        raise ConfigError(f"no such store: --store {store}. Name the folder that `precompute` filled.")


def _without_auto(
    config: RunConfig, saved: RunConfig | None, data: Datasets, choice: TeacherChoice, world: World
) -> RunConfig:
    on_cuda = world.device.type == "cuda"
    numerics, optimisation, views = config.numerics, config.optimisation, config.views
    kept = saved.optimisation.micro_batches if saved is not None else None
    micro_batches = optimisation.micro_batches or kept or _num_micro_batches(optimisation, world.size)
    check_divides(optimisation.batch, micro_batches, "the number of ranks")
    auto_amp: Amp = "bf16" if on_cuda else "off"
    source = config.teaching.teacher_source if choice.source == "none" else choice.source
    return replace(
        config,
        teacher=choice.teacher,
        teaching=replace(config.teaching, teacher_source=source),
        numerics=replace(
            numerics,
            amp=auto_amp if numerics.amp == "auto" else numerics.amp,
            teacher_precision=teacher_precision(numerics.teacher_precision, world.device),
        ),
        optimisation=replace(optimisation, micro_batches=micro_batches),
        views=replace(views, val_resolution=views.val_resolution or views.resolution, num_views=choice.num_views),
        running=replace(
            config.running,
            backend=data.train_backend.name,
            dali_decoder=data.dali_decoder,
            device="cuda" if on_cuda else "cpu",
        ),
    )


def _as_begun(config: RunConfig, saved: RunConfig | None, world: World) -> RunConfig:
    if saved is None or (saved.running.device, world.device.type) != ("cuda", "cuda"):
        return config
    by_dali = saved.running.backend == "dali" and config.files.beton is None
    running = as_begun(config.running, reads_by_dali=by_dali, decoder=saved.running.dali_decoder)
    return replace(config, running=running)


def _num_micro_batches(optimisation: Optimisation, num_ranks: int) -> int:
    """The fewest equal parts of the batch that are small enough, of which every rank has one; the ranks' number where
    nothing more is asked, or nothing divides.
    """
    batch, greatest = optimisation.batch, optimisation.max_micro_batch
    if greatest is None:
        return num_ranks
    return next((num for num in range(num_ranks, batch + 1) if batch % num == 0 and batch <= num * greatest), num_ranks)
