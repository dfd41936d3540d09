"""A whole precompute job, in the order in which it happens.

flags        --open-->     images, teacher, codecs; compared with the store where there is one
probe        --measure-->  the teacher's top-1, noise floor, classifier; then the store is begun
store        --missing-->  units of work (shards), dealt to independent jobs and to ranks
unit         --loader-->   batches of pixels --teacher--> outputs --codecs--> a shard, written in a thread, sealed whole
"""

import os
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.data.loader import Batch
from pipeline.devices.streams import copy_to_host
from pipeline.devices.world import World, start_world, stop_world
from pipeline.engine.journal import write_state
from pipeline.engine.run_directory import Attempt, scratch_folder
from pipeline.engine.signals import StopRequest
from precompute.begin import begin_store
from precompute.config import PrecomputeConfig, check_config, check_store_named, parse_part
from precompute.endings import Pace, noted_failures, remedies, say_gray
from precompute.going_on import check_pixels, made_with
from precompute.pulse import Pulse, Totals
from precompute.report import Report, format_bytes, say, show_end
from precompute.requests import Feed
from precompute.setting import Setting, check_names, open_setting
from precompute.store_folder import check_folder, finish_store, left_as_found, remove_old_leftovers
from precompute.work import Unit, cut_units, deal, from_json, missing_units, take_part, to_json
from precompute.writer import BackgroundWriter, Piece
from stores.layout import JOBS_FOLDER, ShardKey

Outcome = Literal["done", "preempted"]


def precompute(config: PrecomputeConfig) -> Outcome:
    """Run the job, or go on with it, in this process as one of its ranks.

    Returns:
        "done", or "preempted" when a signal asked for an early end; the same command goes on.

    Raises:
        RefluxError: anything a user can mend; its state.json says the same, once the store is known to be its own.
    """
    check_config(config)
    store, rank = check_store_named(config), int(os.environ.get("RANK", "0"))
    folder = store / JOBS_FOLDER / parse_part(config.part).folder_name
    stop = StopRequest()
    stop.install()
    with remedies(store):
        check_folder(store)
    attempt = Attempt(folder, rank, muted=config.dry_run)
    with left_as_found(store, folder, rank), noted_failures(attempt), remedies(store):
        check_names(config)
        world = start_world(config.device, config.threads)
        with scratch_folder(world, folder) if config.dry_run else nullcontext(folder) as used:
            outcome = _precompute(config, world, used, stop, attempt)
    stop_world(world)
    return outcome


def _precompute(config: PrecomputeConfig, world: World, folder: Path, stop: StopRequest, attempt: Attempt) -> Outcome:
    store, main = check_store_named(config), world.is_main
    with open_setting(config, world, folder) as setting:
        if config.dry_run:
            _say_work(setting, find_work(setting))
            return "done"
        world.main_first(lambda: remove_old_leftovers(store))
        if not attempt.is_known:
            attempt.accept()
        begun = begin_store(setting, lambda: stop.raised)
        attempt.accept()
        if begun is None:
            return _stopped(folder, stop.name, left="all", main=main)
        setting, measured = begun

        units = find_work(setting)
        if units:
            check_pixels(setting)
        _say_work(setting, units)
        shards, rows = (sum(count) for count in ([len(u.views) for u in units], [u.num_rows for u in units]))
        with Report(enabled=main, shards=shards, rows=rows, folder=folder) as report:
            with Pulse(world, stop, report.beat) as pulse:
                own = deal(units, world.rank, world.size)
                fill_units(setting, own, pulse)
                pulse.leave(_count_shards(missing_units(own, store)))
            totals, seconds = pulse.totals, report.seconds
        show_end(totals, views=config.views, seconds=seconds, enabled=main and totals.rows > 0)
        if totals.left:
            return _stopped(folder, pulse.stop_name, left=f"{totals.left}", main=main)
        world.main_first(lambda: finish_store(store, replace(setting.manifest, measured=measured)))
        _say_done(setting, folder, totals)
    return "done"


def find_work(setting: Setting) -> list[Unit]:
    """This job's missing units, as rank 0 sees the store; the same list on every rank."""
    config, world = setting.config, setting.world
    found: list[list[int]] = []
    if world.is_main:
        units = cut_units(
            config.all_views,
            num_rows=len(setting.source.index),
            shard_rows=config.shard_rows,
            views_per_decode=config.views_per_decode,
        )
        found = to_json(missing_units(take_part(units, parse_part(config.part)), check_store_named(config)))
    return from_json(world.gather(found)[0])


def fill_units(setting: Setting, units: list[Unit], pulse: Pulse) -> None:
    """Make the shards of this rank's units, until a signal has come and the rest would take too long.

    Raises:
        StoreError: a shard cannot be encoded or written.
        PeerError: another rank failed.
    """
    with BackgroundWriter(
        check_store_named(setting.config),
        setting.manifest,
        setting.codecs,
        made_with=made_with(setting),
        on_written=pulse.count,
    ) as writer:
        with closing(_compute(setting, units, pulse)) as pieces:
            for finish_copy in pieces:
                writer.put(finish_copy())
        writer.finish()


def _compute(setting: Setting, units: list[Unit], pulse: Pulse) -> Generator[Callable[[], Piece], None, None]:
    """Run the teacher; each piece is handed out when the next one is on its way, so that the device never waits."""
    config, pace = setting.config, Pace(setting.config.batch)
    feed = Feed(
        units,
        store=check_store_named(config),
        loader=setting.loader,
        batch=config.batch,
        is_stopped=lambda: pulse.stop_name is not None,
    )
    late: deque[Callable[[], Piece]] = deque()
    with closing(setting.loader.load(iter(feed))) as batches:
        for batch in batches:
            pulse.check()
            unit = feed.begun[batch.step]
            if pulse.stop_name is not None and not pace.can_finish(unit, batch.index):
                break
            say_gray(setting.source.index, batch.replaced)
            for position in range(len(unit.views)):
                late.append(_start_piece(setting, batch, unit, position))
                if len(late) > 1:
                    yield late.popleft()
            pace.note_batch()
    yield from late


def _start_piece(setting: Setting, batch: Batch, unit: Unit, position: int) -> Callable[[], Piece]:
    """Run the teacher on one view of a batch, in which the views of a sample lie side by side."""
    own = slice(position, None, len(unit.views))
    outputs = setting.teacher.of_pixels(batch.images[own])
    both = {"logits": outputs.logits, "embedding": outputs.embedding}
    kept = {codec.source for codec in setting.codecs}
    copied = copy_to_host({name: value for name, value in both.items() if name in kept and value is not None})
    key = ShardKey(unit.views[position], unit.start, unit.stop)
    rows = batch.rows.part(own)
    labels: np.ndarray = setting.source.index.labels[rows.ids]
    return lambda: Piece(key, rows, labels, {name: value.numpy() for name, value in copied.wait().items()})


def _count_shards(units: list[Unit]) -> int:
    return sum(len(unit.views) for unit in units)


def _say_work(setting: Setting, units: list[Unit]) -> None:
    config, world, index = setting.config, setting.world, setting.source.index
    per_view = -(-len(index) // config.shard_rows)
    part = parse_part(config.part)
    share = "" if part.total == 1 else f" of part {part}"
    left, rows = _count_shards(units), sum(unit.num_rows for unit in units)
    say(
        f"{config.teacher} at {config.resolution} px in {setting.manifest.teacher.precision}:"
        f" views {config.views} of {len(index):,} images, {per_view} shard(s) each, {config.keep}\n"
        f"{left} shard(s){share} to make: {rows:,} rows, {format_bytes(rows * setting.row_bytes)} |"
        f" {world.size} rank(s) on {world.device.type}, {world.threads} decoder thread(s) each",
        enabled=world.is_main,
    )
    if config.views_per_decode > 1 and setting.manifest.pixel_recipe.backend == "dali":
        say(
            "dali decodes a window for each view: for one decode a sample take --backend torchvision or ffcv",
            enabled=world.is_main,
        )


def _say_done(setting: Setting, folder: Path, totals: Totals) -> None:
    store, main = setting.config.store, setting.world.is_main
    if main:
        write_state(folder, "done", "", shards=totals.shards, rows=totals.rows)
    say(
        f"{store}: views {setting.config.views} are there; look at it with: python -m stores show {store}", enabled=main
    )


def _stopped(folder: Path, signal: str | None, *, left: str, main: bool) -> Outcome:
    message = f"stopped by {signal or 'a signal'}: {left} shard(s) of this job are left; the same command goes on"
    if main:
        write_state(folder, "preempted", message)
    say(message, enabled=main)
    return "preempted"
