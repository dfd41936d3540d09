"""Going on with a store whose pixels another decoder made: where the store's own rows say that it changes nothing.

A data set's JPEGs give the same bits to both, so a store that an older Reflux began is finished by this one. Shards
keep the store's recipe, by which they belong together, and record their own beside the software that made them.
"""

from typing import Any

from pipeline.core.errors import StoreError
from pipeline.teachers.recompute import recipe_of
from precompute.audit import Audit, draw_rows
from precompute.config import check_store_named
from precompute.setting import Setting, describe_software
from stores.reader import open_store

_NUM_ROWS = 64


def check_pixels(setting: Setting) -> None:
    """Compute rows of the store again where its recipe is another than this job's. A collective call.

    Raises:
        StoreError: they diverge by more than training allows foreign pixels, or there is no complete view to ask.
    """
    here, there = recipe_of(setting.loader.backend), setting.manifest.pixel_recipe
    if here != there:
        setting.world.main_first(lambda: _measure(setting, f"  store: {there}\n  here:  {here}"))


def made_with(setting: Setting) -> dict[str, Any]:
    """What a shard says of its making: software and device, and the pixel recipe where it is not the store's."""
    here = recipe_of(setting.loader.backend)
    own = {} if here == setting.manifest.pixel_recipe else {"pixel_recipe": here.to_json()}
    return describe_software(setting.world) | own


def _measure(setting: Setting, sides: str) -> None:
    report = _audit(setting, sides).compare(lambda *_: None)  # the rows are done in a few seconds
    figures = "\n".join(report.lines())
    if any(problem.kind != "note" for problem in report.problems):
        raise StoreError(
            f"the store's pixels were made by another decoder, and the teacher tells them apart:\n{sides}\n{figures}\n"
            "A store never mixes such pixels: begin another one with --store. This one may still be trained from."
        )
    setting.say(f"pixels are made by another decoder than the store's; its rows allow to go on:\n{sides}\n{figures}")


def _audit(setting: Setting, sides: str) -> Audit:
    reader = open_store(check_store_named(setting.config))
    if not reader.complete_views():
        raise StoreError(
            f"the store's pixels were made by another decoder, and no view is complete to compare them by:\n{sides}\n"
            "Begin another store with --store, or end a view of this one with the Reflux that began it."
        )
    rows = draw_rows(reader, num_rows=_NUM_ROWS, seed=0)
    return Audit(reader, rows, setting.source.index, setting.loader.backend, setting.teacher)
