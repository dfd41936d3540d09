"""From a configuration with "auto" in it to one that says what runs, so that a restart elsewhere cannot differ."""

from dataclasses import replace

from pipeline.config import Amp, Optimisation, Precision, RunConfig, check_divides
from pipeline.data.datasets import Datasets
from pipeline.devices.world import World
from pipeline.teachers.choice import TeacherChoice


def resolve(
    config: RunConfig, saved: RunConfig | None, data: Datasets, choice: TeacherChoice, world: World
) -> RunConfig:
    """Replace every default that depends on this machine or job by its value.

    Args:
        config: from the command line.
        saved: the run's own, where it is continued: the number of micro-batches is taken from it.
        data: the opened data sets.
        choice: where teacher outputs come from.
        world: the ranks.

    Raises:
        ConfigError: the batch cannot be divided.
    """
    on_cuda = world.device.type == "cuda"
    numerics, optimisation, views = config.numerics, config.optimisation, config.views
    kept = saved.optimisation.micro_batches if saved is not None else None
    micro_batches = optimisation.micro_batches or kept or _num_micro_batches(optimisation, world.size)
    check_divides(optimisation.batch, micro_batches, "the number of ranks")
    auto_amp: Amp = "bf16" if on_cuda else "off"
    auto_teacher: Precision = "fp16" if on_cuda else "fp32"
    source = config.teaching.teacher_source if choice.source == "none" else choice.source
    return replace(
        config,
        teacher=choice.teacher,
        teaching=replace(config.teaching, teacher_source=source),
        numerics=replace(
            numerics,
            amp=auto_amp if numerics.amp == "auto" else numerics.amp,
            teacher_precision=auto_teacher if numerics.teacher_precision == "auto" else numerics.teacher_precision,
        ),
        optimisation=replace(optimisation, micro_batches=micro_batches),
        views=replace(views, val_resolution=views.val_resolution or views.resolution, num_views=choice.num_views),
        running=replace(
            config.running,
            backend=data.train_backend,
            dali_decoder=data.dali_decoder,
            device="cuda" if on_cuda else "cpu",
        ),
    )


def as_begun(config: RunConfig, saved: RunConfig | None, world: World) -> RunConfig:
    """With what "auto" stood for on CUDA when the run was begun with DALI: today it may stand for something else.

    Args:
        config: from the command line.
        saved: the run's own, where it is continued.
        world: the ranks.
    """
    if saved is None or (saved.running.device, world.device.type) != ("cuda", "cuda"):
        return config
    now, begun = config.running, saved.running
    is_dali = begun.backend == "dali" and config.files.beton is None
    backend = "dali" if now.backend == "auto" and is_dali else now.backend
    decoder = begun.dali_decoder if now.dali_decoder == "auto" else now.dali_decoder
    return replace(config, running=replace(now, backend=backend, dali_decoder=decoder))


def _num_micro_batches(optimisation: Optimisation, num_ranks: int) -> int:
    """The fewest equal parts of the batch that are small enough, of which every rank has one; the ranks' number where
    nothing more is asked, or nothing divides.
    """
    batch, greatest = optimisation.batch, optimisation.max_micro_batch
    if greatest is None:
        return num_ranks
    return next((num for num in range(num_ranks, batch + 1) if batch % num == 0 and batch <= num * greatest), num_ranks)
