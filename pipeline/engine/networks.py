"""Teacher, student and method of a run, built from its configuration."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from pipeline.core.config import RunConfig
from pipeline.core.dist import World
from pipeline.core.errors import ConfigError
from pipeline.data.loader import normalise
from pipeline.data.policies.registry import get_policy
from pipeline.engine.distiller import Distiller, StudentNumerics
from pipeline.methods.registry import build_method
from pipeline.models.outputs import Outputs
from pipeline.models.spec import parse_spec
from pipeline.models.zoo import build_network, check_spec
from pipeline.teachers.online import OnlineTeacher

_OUTPUTS = frozenset({"logits", "embedding", "head"})


@dataclass(frozen=True)
class Networks:
    """What learns and what teaches.

    Attributes:
        distiller: student and method, on the device.
        prepare: pixels to the student's normalised images.
        teach: pixels to teacher outputs; None where the method needs none.
        teacher_parameters: their number.
    """

    distiller: Distiller
    prepare: Callable[[torch.Tensor], torch.Tensor]
    teach: Callable[[torch.Tensor], Outputs] | None
    teacher_parameters: int


def check_names(config: RunConfig) -> None:
    """Refuse unknown names of methods, models and policies before any data is looked at.

    Raises:
        ConfigError: with what is known; or a teacher that is missing or not needed.
    """
    needs = build_method(config.method, config.method_args).needs
    if needs.teacher and config.teacher is None:
        raise ConfigError(f"method '{config.method}' needs a teacher: give --teacher NAME@WEIGHTS")
    if not needs.teacher and config.teacher is not None:
        raise ConfigError(f"method '{config.method}' learns from labels alone: leave out --teacher {config.teacher}")
    check_spec(parse_spec(config.student), role="student")
    if config.teacher is not None:
        check_spec(parse_spec(config.teacher), role="teacher")
    for policy in (config.views.policy, config.views.val_policy):
        get_policy(policy)


def build_networks(config: RunConfig, *, num_classes: int, world: World) -> Networks:
    """Build everything that has weights; the same on every rank, as a function of the run seed.

    Raises:
        ConfigError: unknown names, weights that do not fit, a teacher that is missing or not needed.
    """
    set_kernels(deterministic=config.numerics.deterministic)
    method = build_method(config.method, config.method_args)
    student = build_network(
        parse_spec(config.student),
        num_classes=num_classes,
        seed=config.optimisation.run_seed,
        taps=method.needs.student,
        role="student",
    )
    module: nn.Module = student
    if config.numerics.sync_bn:
        module = _synchronise_batch_norm(student, config, world)
    memory_format = torch.channels_last if config.numerics.channels_last else torch.contiguous_format
    numerics = StudentNumerics(world.device, config.numerics.amp, config.optimisation.label_smoothing)
    distiller = Distiller(module, method, numerics, compiled=config.numerics.compile)  # type: ignore[arg-type]
    distiller = distiller.to(device=world.device, memory_format=memory_format)  # type: ignore[call-overload]
    teacher = _teacher(config, method.needs.teacher, num_classes, world, memory_format)
    return Networks(
        distiller=distiller,
        prepare=preparation(config.views.mean, config.views.std, world.device, memory_format),
        teach=None if teacher is None else _teach(config, teacher, world, memory_format),
        teacher_parameters=0 if teacher is None else sum(p.numel() for p in teacher.network.parameters()),
    )


def preparation(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, memory_format: torch.memory_format
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function from (B, H, W, 3) uint8 pixels to normalised images, with its constants on the device."""
    mean_3, std_3 = torch.tensor(mean, device=device), torch.tensor(std, device=device)
    return lambda images: normalise(images, mean_3, std_3, memory_format)


def set_kernels(*, deterministic: bool) -> None:
    """Choose between deterministic kernels and the fastest ones, for the whole process."""
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic


def _teacher(
    config: RunConfig, needs: frozenset[str], num_classes: int, world: World, memory_format: torch.memory_format
) -> OnlineTeacher | None:
    if config.teacher is None:  # the method needs none: see `check_names`
        return None
    network = build_network(
        parse_spec(config.teacher),
        num_classes=num_classes,
        seed=config.optimisation.run_seed,
        taps=needs - _OUTPUTS,
        role="teacher",
    )
    return OnlineTeacher(
        network,
        device=world.device,
        precision=config.numerics.teacher_precision,
        memory_format=memory_format,
        compiled=config.numerics.compile,
    )


def _teach(
    config: RunConfig, teacher: OnlineTeacher, world: World, memory_format: torch.memory_format
) -> Callable[[torch.Tensor], Outputs]:
    views = config.views
    mean, std = views.teacher_mean or views.mean, views.teacher_std or views.std
    prepare = preparation(mean, std, world.device, memory_format)
    return lambda images: teacher.outputs(prepare(images))


def _synchronise_batch_norm(student: nn.Module, config: RunConfig, world: World) -> nn.Module:
    if world.device.type != "cuda":
        raise ConfigError("--sync-bn needs CUDA devices: PyTorch has no synchronised BatchNorm on the CPU")
    micro_batches = config.optimisation.micro_batches or world.size
    if micro_batches % world.size:
        raise ConfigError(
            "--sync-bn needs the same number of micro-batches on every rank:"
            f" {micro_batches} micro-batches, {world.size} ranks"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(student)
