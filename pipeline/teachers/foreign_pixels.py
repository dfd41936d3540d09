"""Foreign pixels: made by another recipe (backend, copy, decoder) than the store's.

May a run use its rows all the same? Measured by the teacher itself, on a few rows.
"""

from contextlib import closing

import numpy as np

from pipeline.config import RunConfig
from pipeline.core.errors import ConfigError, RefluxError, StoreError
from pipeline.data.backend import BackendOptions, DaliDecoding, Source, open_backend
from pipeline.data.loader import Loader
from pipeline.devices.numerics import fixed_numerics
from pipeline.devices.world import World
from pipeline.teachers.choice import StoredViews
from pipeline.teachers.rebuild import rebuild
from pipeline.teachers.recompute import Recomputed, allowed_divergence, divergence, recipe_of, recompute
from pipeline.teachers.stored import check_keys

_NUM_ROWS = 64


def check_pixels(config: RunConfig, stored: StoredViews, source: Source, loader: Loader, world: World) -> None:
    """Compare pixel recipes; where they differ, measure what the difference does to the teacher's outputs.

    The same recipe passes. Another one passes while the mean KL(teacher on this run's pixels || stored rows) stays
    within --max-divergence, by default `allowed_divergence`. A collective call; the main rank measures.

    Raises:
        StoreError: the divergence is too great; the message has the figure.
        ConfigError: it cannot be measured here, since the store's teacher cannot be run.
    """
    recorded, own = stored.reader.manifest.pixel_recipe, recipe_of(loader.backend)
    limit = config.teaching.max_divergence
    if limit is None:
        limit = allowed_divergence(stored.reader.manifest, [codec.id for codec in stored.codecs])
    if recorded == own or limit == float("inf") or not stored.views:
        return

    def measure() -> None:
        with fixed_numerics(world.device):
            found = _mean_divergence(config, stored, source, world)
        sides = f"  store: {recorded}\n  run:   {own}"
        if not found <= limit:  # nor NaN
            raise StoreError(
                "the store's pixels were made in another way, and the teacher tells them apart:"
                f"\nmean KL {found:.3g} over {_NUM_ROWS} rows, {limit:.3g} is allowed.\n{sides}\n"
                f"Train with the store's backend, or accept the difference: --max-divergence {2 * found:.0e}"
            )
        print(f"pixels are made in another way than the store's: mean KL {found:.3g}, allowed {limit:.3g}\n{sides}")

    world.main_first(measure)


def _mean_divergence(config: RunConfig, stored: StoredViews, source: Source, world: World) -> float:
    """Over rows of one view, spread evenly over the data set."""
    manifest = stored.reader.manifest
    try:
        teacher = rebuild(manifest, world.device)
    except RefluxError as error:
        raise _cannot_measure(config, error) from error
    count = min(_NUM_ROWS, len(source.index))
    ids = source.index.ids[np.arange(count) * len(source.index) // count]
    options = BackendOptions(
        manifest.teacher.resolution,
        world.threads,
        manifest.teacher.batch,
        str(world.device),
        dali=DaliDecoding.of(config.running),
    )
    rows = np.full(count, min(stored.views)), ids
    with closing(open_backend(config.running.backend, source, options)) as backend:
        try:
            parts = list(recompute(manifest, rows, source.index, backend, teacher))
        except RuntimeError as error:  # no memory for the store's batches, no compiler for its kernels
            raise _cannot_measure(config, error) from error
    return float(np.mean(np.concatenate([_divergences(stored, now) for now in parts])))


def _divergences(stored: StoredViews, now: Recomputed) -> np.ndarray:
    view = int(now.views[0])
    columns = stored.reader.gather(view, now.ids, fields=())
    check_keys(stored.reader, view, now.ids, columns, labels=now.labels, plan_crcs=now.plan_crcs)
    return divergence(now.logits, stored.logits(view, now.ids))


def _cannot_measure(config: RunConfig, reason: Exception) -> ConfigError:
    return ConfigError(
        f"the store's pixels were made in another way than --backend {config.running.backend} makes them, and what that"
        f" changes\ncannot be measured, since its teacher cannot be run here: {reason}\n"
        "Train with the store's backend, or accept the difference unmeasured with --max-divergence inf."
    )
