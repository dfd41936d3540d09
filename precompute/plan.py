"""What a store would cost before anything is spent: bytes for each codec, hours, from how many students on it pays."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.command import Lines, format_bytes, print_table, said_once
from pipeline.core.errors import ConfigError
from pipeline.core.fields import check_numbers
from pipeline.devices.world import start_world, stop_world
from pipeline.jobs.open import scratch_folder
from precompute.config import PlanConfig, check_config
from precompute.report import format_duration
from precompute.setting import Setting, check_names, open_setting
from precompute.speed import Speeds, measure_speeds
from precompute.units import find_work
from precompute.work import count_rows
from stores.codec import Codec
from stores.codec_registry import codec_ids, parse_codecs

_BYTES_BESIDES = 12  # label, plan_crc and row_crc of a row


def show_plan(config: PlanConfig) -> None:
    """Print the plan. Under torchrun all ranks measure at once, as they would work.

    Raises:
        RefluxError: what the job itself would refuse; and a store that does not fit its disk.
    """
    job = config.job
    with said_once(ConfigError):
        check_config(job)
        check_numbers(config)
        policy = check_names(job)
    world = start_world(job.device, job.reading.threads)
    with scratch_folder(world) as folder, open_setting(job, policy, world, folder) as setting:
        speeds = measure_speeds(setting, config.probe_batches)
        if world.is_main:
            rows = len(job.all_views) * len(setting.source.index)
            _show_bytes(setting, rows)
            for line in cost_lines(config, rows=rows, images=len(setting.source.index), speeds=speeds):
                setting.say(line)
        left = count_rows(find_work(setting)) if job.store is not None else None
    stop_world(world)
    if world.is_main and left is not None and job.store is not None:
        check_free(job.store, left * (setting.row_bytes + _BYTES_BESIDES))


def cost_lines(config: PlanConfig, *, rows: int, images: int, speeds: Speeds) -> Iterator[str]:
    """Hours of the teacher, what bounds them, and the break-even number of students.

    Args:
        config: the job, and epochs of a student.
        rows: of all views.
        images: of the data set.
        speeds: measured here.
    """
    yield (
        f"measured here: loader {speeds.loader:,.0f}, teacher {speeds.teacher:,.0f}, together {speeds.together:,.0f}"
        f" images/s; the {'loader' if speeds.loader < speeds.teacher else 'teacher'} is the slower one"
    )
    seconds, online = rows / speeds.together, config.epochs * images / speeds.teacher
    yield f"views {config.job.views} take {format_duration(seconds)}: {rows:,} rows"
    students = max(1, math.ceil(seconds / online))
    yield (
        f"an online teacher costs each student {format_duration(online)} over {config.epochs} epochs:"
        f" the store pays from {students} student(s) on"
    )


def check_free(store: Path, num_bytes: int) -> None:
    """Say how much room there is at the store.

    Raises:
        ConfigError: not enough.
    """
    there = next(path for path in (store, *store.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if num_bytes > free:
        raise ConfigError(
            f"the store does not fit: {format_bytes(num_bytes)} are still to be written, {there} has"
            f" {format_bytes(free)} free.\nName another --store, fewer --views, or a smaller codec with --keep."
        )
    left = f"{format_bytes(num_bytes)} are still to be written, {there} has {format_bytes(free)} free"
    Lines(enabled=True).say(left)


def _show_bytes(setting: Setting, rows: int) -> None:
    kept, images = {codec.id for codec in setting.codecs}, len(setting.source.index)
    sizes = {codec.id: codec.row_bytes + _BYTES_BESIDES for codec in _all_codecs(setting)}
    print_table(
        ("codec", "bytes a row", "a view", setting.config.views, "kept"),
        [
            (name, f"{size:,}", format_bytes(size * images), format_bytes(size * rows), "yes" if name in kept else "")
            for name, size in sizes.items()
        ],
    )


def _all_codecs(setting: Setting) -> list[Codec]:
    """Each codec for this teacher, as it is kept or with its defaults."""
    chosen, network = {codec.id: codec for codec in setting.codecs}, setting.teacher.network
    small = {"topk"} if network.num_classes <= 20 else set()  # its default number does not fit
    shape = {"num_classes": network.num_classes, "embedding_dim": network.embedding_dim}
    return [
        chosen[name] if name in chosen else parse_codecs(name, **shape)[0]
        for name in codec_ids()
        if name in chosen or name not in small
    ]
