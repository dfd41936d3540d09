"""Stored rows against the same rows computed again on foreign pixels: by divergence, and with a doubt.

Another decoder moves every logit, those of unlikely classes most, so that no bound on a logit would tell a row that is
wrong from one that is not. The divergence does, within what training allows such pixels.
"""

from dataclasses import replace

from pipeline.teachers.recompute import Recomputed
from precompute.comparison import CodecFigures, Compared, bad_rows
from stores.problems import Problem
from stores.reader import StoreReader
from stores.records import PixelRecipe

ONE_OF_MANY = 100.0  # one row's divergence over the mean of many: few images change much where most hardly do


def too_divergent(reader: StoreReader, now: Recomputed, found: Compared, limit: float) -> list[Problem]:
    """Rows of one codec that diverge more than a hundred times as far as the mean of all rows may, `limit`."""
    most = ONE_OF_MANY * limit
    apart = f"KL up to {found.figures.kl_max:.3g} where {most:.3g} is allowed"
    message = f"{found.figures.codec}: logits are not the teacher's, {apart}"
    return bad_rows(reader, now, ~(found.divergences <= most), message)  # NaN is far


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
