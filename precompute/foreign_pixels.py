"""Stored rows against the same rows computed again on foreign pixels: by divergence, and with a doubt.

Another decoder moves every logit, those of unlikely classes most, so that no bound on a logit would tell a row that is
wrong from one that is not. The divergence does, within what training allows such pixels.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pipeline.teachers.recompute import Recomputed
from precompute.comparison import CodecFigures, compare_logits, join_figures
from stores.codecs.base import Codec
from stores.index_file import Head
from stores.layout import ShardKey, shard_keys
from stores.problems import Problem
from stores.reader import StoreReader
from stores.records import PixelRecipe

ONE_OF_MANY = 100.0  # one row's divergence over the mean of many: few images change much where most hardly do


def compare_diverging(
    reader: StoreReader, codec: Codec, head: Head | None, stored: dict[str, np.ndarray], now: Recomputed, limit: float
) -> tuple[CodecFigures, list[Problem]]:
    """Logits from one codec's fields: a row may diverge a hundred times as far as the mean of all rows, `limit`."""
    each = []
    for row in range(len(now.ids)):
        part = slice(row, row + 1)
        columns = {name: column[part] for name, column in stored.items()}
        each.append(compare_logits(reader.path, reader, codec, head, columns, _part(now, part))[0])
    figures, most = join_figures(each, [1] * len(each)), ONE_OF_MANY * limit
    is_far = np.array([not one.kl_max <= most for one in each])  # NaN is far
    message = f"{codec.id}: logits are not the teacher's, KL up to {figures.kl_max:.3g} where {most:.3g} is allowed"
    found = [
        Problem(key.path(reader.path), message, view=key.view, ids=ids) for key, ids in _by_shard(reader, now, is_far)
    ]
    return figures, found


def in_doubt(
    reader: StoreReader,
    here: PixelRecipe,
    figures: tuple[CodecFigures, ...],
    allowed: tuple[float, ...],
    problems: list[Problem],
) -> list[Problem]:
    """A note of both ways of making pixels; then means that are too great and `problems`, the first with a doubt.

    Args:
        reader: the store.
        here: how pixels are made here.
        figures: of all rows, by codec.
        allowed: mean divergences, by codec.
        problems: rows that diverge too far.
    """
    there = reader.manifest.pixel_recipe
    sides = f"  store: {there}\n  here:  {here}"
    note = Problem(reader.path, f"pixels are made here in another way than the store's\n{sides}", kind="note")
    means = [
        Problem(reader.path, f"{one.codec}: the teacher's outputs diverge by {one.kl_mean:.3g}, {limit:.3g} is allowed")
        for one, limit in zip(figures, allowed, strict=True)
        if not one.kl_mean <= limit
    ]
    doubt = (
        f". The store may be intact: its pixels were made by {there.backend}, those here by {here.backend}"
        " in another way. Compare with its own backend and images"
    )
    first, others = [*means, *problems][:1], [*means, *problems][1:]
    return [note, *(replace(one, message=one.message + doubt) for one in first), *others]


def _part(now: Recomputed, part: slice) -> Recomputed:
    return Recomputed(now.views[part], now.ids[part], now.labels[part], now.plan_crcs[part], now.logits[part])


def _by_shard(
    reader: StoreReader, now: Recomputed, is_chosen: np.ndarray
) -> Iterator[tuple[ShardKey, tuple[int, ...]]]:
    for view in np.unique(now.views[is_chosen]).tolist():
        ids = np.sort(now.ids[is_chosen & (now.views == view)])
        for key in shard_keys(view, reader.manifest.num_rows, reader.manifest.shard_rows):
            inside = ids[(ids >= key.start) & (ids < key.stop)]
            if len(inside):
                yield key, tuple(inside.tolist())
