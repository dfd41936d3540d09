"""Teacher, student and method of a run, built from its configuration."""

from dataclasses import dataclass

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.config import RunConfig
from pipeline.core.errors import ConfigError
from pipeline.devices.numerics import memory_format
from pipeline.devices.world import World
from pipeline.engine.distiller import Distiller, StudentNumerics
from pipeline.engine.resolve import Run
from pipeline.methods._shared.method import Setting
from pipeline.models.measures import map_shapes, norm_values
from pipeline.models.network import Network
from pipeline.models.zoo import build_network
from pipeline.teachers.base import Teacher
from pipeline.teachers.build import build_online, join_teacher, teacher_head
from pipeline.teachers.preparation import Prepare, preparation
from pipeline.teachers.runner import TeacherRunner


@dataclass(frozen=True)
class Networks:
    """What learns and what teaches.

    Attributes:
        distiller: student and method, on the device.
        prepare: pixels to the student's normalised images.
        teacher: gives teacher outputs; None where the method needs none.
    """

    distiller: Distiller
    prepare: Prepare
    teacher: Teacher | None


def build_networks(run: Run, world: World) -> Networks:
    """Build everything that has weights; the same on every rank, as a function of the run seed.

    Raises:
        ConfigError: unknown names, weights that do not fit, a teacher that is missing or not needed.
    """
    config, method, index = run.config, run.names.method, run.data.train.index
    student = build_network(
        run.names.student,
        num_classes=len(index.classes),
        seed=config.optimisation.run_seed,
        taps=method.needs.student,
    )
    layout = memory_format(config.numerics.channels_last)
    online = build_online(
        config, run.names.teacher, run.choice, method.needs, num_classes=len(index.classes), device=world.device
    )
    method.build(_setting(run, student, online))
    module = method.student_network(student)
    numerics = StudentNumerics(world.device, config.numerics.amp, config.optimisation.label_smoothing)
    distiller = Distiller(module, method, numerics, compiled=config.numerics.compile)  # type: ignore[arg-type]
    if config.numerics.sync_bn:
        synchronise_batch_norm(distiller, config, world)
    distiller = distiller.to(device=world.device, memory_format=layout)  # type: ignore[call-overload]
    return Networks(
        distiller=distiller,
        prepare=preparation(config.views.mean, config.views.std, world.device, layout),
        teacher=join_teacher(run.choice.stored, online, world.device),
    )


def _setting(run: Run, student: Network, online: TeacherRunner | None) -> Setting:
    """What the method will meet."""
    index, resolution, norms = run.data.train.index, run.config.views.resolution, run.names.method.needs.norms
    # a part of the data says nothing about the other rows; only class by class do counts say which ids are whose
    contiguous = len(index) == index.num_parent and bool(np.all(np.diff(index.labels) >= 0))
    counts = np.bincount(index.labels, minlength=len(index.classes)) if contiguous else ()
    head = teacher_head(run.choice.stored, online)
    return Setting(
        student_dim=student.embedding_dim,
        num_classes=student.num_classes,
        student_maps=map_shapes(student, resolution),
        teacher_maps={} if online is None else online.map_shapes(resolution),
        teacher_dim=None if head is None else head[0].shape[1],
        class_counts=tuple(int(count) for count in counts),
        micro_batch=run.order.micro_batch,
        resolution=resolution,
        head=head,
        teacher_norms={} if online is None else {tap: norm_values(online.network, tap) for tap in norms},
        seed=run.config.optimisation.run_seed,
    )


def synchronise_batch_norm(distiller: Distiller, config: RunConfig, world: World) -> None:
    """Replace each BatchNorm, the student's and those of the method's connectors, by one over all ranks; in place.

    Raises:
        ConfigError: no CUDA device, or a deal in which some ranks would wait for others for ever.
    """
    if world.device.type != "cuda":
        raise ConfigError("--sync-bn needs CUDA devices: PyTorch has no synchronised BatchNorm on the CPU")
    micro_batches = config.optimisation.micro_batches or world.size
    if micro_batches % world.size:
        raise ConfigError(
            "--sync-bn needs the same number of micro-batches on every rank:"
            f" {micro_batches} micro-batches, {world.size} ranks"
        )
    plain = {name: layer for name, layer in distiller.named_modules() if isinstance(layer, _BatchNorm)}
    nn.SyncBatchNorm.convert_sync_batchnorm(distiller)
    for name, layer in plain.items():  # a tap may sit on one (DenseNet's stage4), and PyTorch leaves hooks behind
        replaced = distiller.get_submodule(name)
        replaced._forward_hooks, replaced._forward_pre_hooks = layer._forward_hooks, layer._forward_pre_hooks
