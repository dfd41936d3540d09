"""What there is to do: shards that are missing, as units of work that are dealt to jobs and ranks.

A unit is the same rows of one view, or of a few views that are cut from one decoded image. Units are cut from the views
that were asked for, never from what is missing, so that independent jobs agree on them whenever each of them starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stores.layout import ShardKey, shard_keys


@dataclass(frozen=True)
class Unit:
    """Rows [start, stop) of some views: one shard of each."""

    views: tuple[int, ...]
    start: int
    stop: int

    @property
    def keys(self) -> tuple[ShardKey, ...]:
        """Its shards."""
        return tuple(ShardKey(view, self.start, self.stop) for view in self.views)

    @property
    def num_rows(self) -> int:
        """Rows of all its shards."""
        return len(self.views) * (self.stop - self.start)


def cut_units(views: Sequence[int], *, num_rows: int, shard_rows: int, views_per_decode: int) -> list[Unit]:
    """All units, the first views first: views become complete one after the other."""
    groups = [tuple(views[first : first + views_per_decode]) for first in range(0, len(views), views_per_decode)]
    return [Unit(group, key.start, key.stop) for group in groups for key in shard_keys(group[0], num_rows, shard_rows)]


def without_sealed(unit: Unit, store: Path) -> Unit | None:
    """What is left of a unit: its views whose shard is not there; None where all are."""
    views = tuple(key.view for key in unit.keys if not key.path(store).exists())
    return replace(unit, views=views) if views else None


def missing_units(units: Sequence[Unit], store: Path) -> list[Unit]:
    """What is left of some units."""
    left = (without_sealed(unit, store) for unit in units)
    return [unit for unit in left if unit is not None]


def count_shards(units: Sequence[Unit]) -> int:
    """Shards of all units."""
    return sum(len(unit.views) for unit in units)


def count_rows(units: Sequence[Unit]) -> int:
    """Rows of all their shards."""
    return sum(unit.num_rows for unit in units)


def deal(units: Sequence[Unit], place: int, number: int) -> list[Unit]:
    """The units of one of a `number` of jobs or ranks: neighbours work on neighbouring rows, so that views become
    complete early.
    """
    return list(units[place::number])


def to_json(units: Sequence[Unit]) -> list[list[int]]:
    """Units as lists of numbers, for the other ranks."""
    return [[unit.start, unit.stop, *unit.views] for unit in units]


def from_json(encoded: list[list[int]]) -> list[Unit]:
    """Inverse of `to_json`."""
    return [Unit(tuple(views), start, stop) for start, stop, *views in encoded]
