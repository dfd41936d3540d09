"""Teacher, student and method of a run, built from its configuration."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.config import RunConfig
from pipeline.core.errors import ConfigError
from pipeline.data.loader import normalise
from pipeline.devices.world import World
from pipeline.engine.distiller import Distiller, StudentNumerics
from pipeline.engine.resolve import Run
from pipeline.engine.teacher_choice import StoredOutputs, TeacherChoice
from pipeline.methods._shared.method import Setting
from pipeline.models.measures import head_values, map_shapes, norm_values
from pipeline.models.network import Network
from pipeline.models.weights import fingerprint_of_weights
from pipeline.models.zoo import build_network
from pipeline.teachers.base import Teacher
from pipeline.teachers.online import OnlineTeacher, OnlineViews
from pipeline.teachers.stored import HybridTeacher, StoredTeacher

_OUTPUTS = frozenset({"logits", "embedding", "head"})


@dataclass(frozen=True)
class Networks:
    """What learns and what teaches.

    Attributes:
        distiller: student and method, on the device.
        prepare: pixels to the student's normalised images.
        teacher: gives teacher outputs; None where the method needs none.
    """

    distiller: Distiller
    prepare: Callable[[torch.Tensor], torch.Tensor]
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
    memory_format = torch.channels_last if config.numerics.channels_last else torch.contiguous_format
    online = _online(run, world, memory_format)
    method.build(_setting(run, student, online))
    module = method.student_network(student)
    numerics = StudentNumerics(world.device, config.numerics.amp, config.optimisation.label_smoothing)
    distiller = Distiller(module, method, numerics, compiled=config.numerics.compile)  # type: ignore[arg-type]
    if config.numerics.sync_bn:
        synchronise_batch_norm(distiller, config, world)
    distiller = distiller.to(device=world.device, memory_format=memory_format)  # type: ignore[call-overload]
    return Networks(
        distiller=distiller,
        prepare=preparation(config.views.mean, config.views.std, world.device, memory_format),
        teacher=_teacher(run.choice, online, world),
    )


def preparation(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, memory_format: torch.memory_format
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function from (B, H, W, 3) uint8 pixels to normalised images, with its constants on the device."""
    mean_311, std_311 = (torch.tensor(values)[:, None, None] for values in (mean, std))
    scale, offset = (1 / (255 * std_311)).to(device), (-mean_311 / std_311).to(device)
    return lambda images: normalise(images, scale, offset, memory_format)


def _setting(run: Run, student: Network, online: OnlineViews | None) -> Setting:
    """What the method will meet."""
    index, resolution, norms = run.data.train.index, run.config.views.resolution, run.names.method.needs.norms
    # a part of the data says nothing about the other rows; only class by class do counts say which ids are whose
    contiguous = len(index) == index.num_parent and bool(np.all(np.diff(index.labels) >= 0))
    counts = np.bincount(index.labels, minlength=len(index.classes)) if contiguous else ()
    head = _head(run.choice, online)
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


def _head(choice: TeacherChoice, online: OnlineViews | None) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The teacher's classifier, (C, D) and (C,) float32 on the CPU, from the network or the store."""
    if online is not None:
        return head_values(online.network)
    if choice.stored is None or choice.stored.head is None:
        return None
    stored_weight, stored_bias = choice.stored.head
    return torch.from_numpy(np.array(stored_weight)), torch.from_numpy(np.array(stored_bias))


def _teacher(choice: TeacherChoice, online: OnlineViews | None, world: World) -> Teacher | None:
    if choice.stored is None:
        return online
    stored = stored_teacher(choice.stored, world.device)
    return stored if online is None else HybridTeacher(stored, online)


def stored_teacher(stored: StoredOutputs, device: torch.device) -> StoredTeacher:
    """The decoder of what a run reads from its store."""
    return StoredTeacher(logits=stored.logits, embedding=stored.embedding, head=stored.head, device=device)


def _online(run: Run, world: World, memory_format: torch.memory_format) -> OnlineViews | None:
    config, choice, needs = run.config, run.choice, run.names.method.needs
    if choice.source not in ("online", "hybrid") or run.names.teacher is None or config.teacher is None:
        return None
    network = build_network(
        run.names.teacher,
        num_classes=len(run.data.train.index.classes),
        seed=config.optimisation.run_seed,
        taps=needs.teacher - _OUTPUTS,
    )
    if choice.stored is not None:
        _check_same_weights(config.teacher, network, choice.stored)
    teacher = OnlineTeacher(
        network,
        device=world.device,
        precision=config.numerics.teacher_precision,
        memory_format=memory_format,
        compiled=config.numerics.compile,
        graphed=config.numerics.cuda_graphs == "teacher",
        mode=needs.teacher_mode,
    )
    views = config.views
    mean, std = views.teacher_mean or views.mean, views.teacher_std or views.std
    if (mean, std) == (views.mean, views.std):
        return OnlineViews(teacher, None)
    return OnlineViews(teacher, preparation(mean, std, world.device, memory_format))


def _check_same_weights(name: str, network: Network, stored: StoredOutputs) -> None:
    recorded, own = stored.reader.manifest.teacher, fingerprint_of_weights(network.model)
    if recorded["weights_sha256"] != own:
        raise ConfigError(
            "--teacher-source hybrid needs one teacher for stored and online views, and their weights differ.\n"
            f"  store:     {recorded['name']}, sha256 {recorded['weights_sha256'][:16]}\n"
            f"  --teacher: {name}, sha256 {own[:16]}\n"
            "Give the store's teacher, or --teacher-source stored or online."
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
