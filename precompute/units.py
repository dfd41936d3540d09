"""Units of work, from what is missing to sealed shards: the teacher's pass over them, and the thread that writes."""

from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing

import numpy as np

from pipeline.data.loader import Batch
from pipeline.devices.streams import copy_to_host
from pipeline.jobs.console import say_gray
from pipeline.jobs.pulse import Pulse
from precompute.config import check_store_named, parse_part
from precompute.endings import Pace
from precompute.going_on import made_with
from precompute.requests import Feed
from precompute.setting import Setting
from precompute.work import Unit, cut_units, deal, from_json, missing_units, to_json
from precompute.writer import BackgroundWriter, Piece
from stores.layout import ShardKey


def find_work(setting: Setting) -> list[Unit]:
    """This job's missing units, as rank 0 sees the store; the same list on every rank."""
    config = setting.config
    units = cut_units(
        config.all_views,
        num_rows=len(setting.source.index),
        shard_rows=config.shard_rows,
        views_per_decode=config.views_per_decode,
    )
    part, store = parse_part(config.part), check_store_named(config)
    own = deal(units, part.number - 1, part.total)
    return from_json(setting.world.main_first(lambda: to_json(missing_units(own, store))))


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
            say_gray(setting.source.index, sorted(set(batch.replaced)))
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
