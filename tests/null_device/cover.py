"""A small set of configurations in which every two settings meet.

Faults of a combination are nearly always of two settings; all their pairs fit in about as many rows as the two longest
lists have pairs, where the full product has thousands.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from typing import Any

Row = dict[str, Any]
Pair = frozenset[tuple[str, Any]]


def full(factors: Mapping[str, Sequence[Any]], is_allowed: Callable[[Row], bool]) -> list[Row]:
    """Every allowed row."""
    rows = (dict(zip(factors, values, strict=True)) for values in product(*factors.values()))
    return [row for row in rows if is_allowed(row)]


def pairwise(factors: Mapping[str, Sequence[Any]], is_allowed: Callable[[Row], bool]) -> list[Row]:
    """Allowed rows that hold every allowed pair of values; the same rows at every call.

    Each row begins with a pair that is still missing, and takes for every other factor the value that brings most
    missing pairs along; among equals the one named first, so name the cheap value first.

    Args:
        factors: values by name.
        is_allowed: of a row, or a part of one; with a part allowed, some value of every other factor must be too.
    """
    missing = _pairs_of(factors, is_allowed)
    rows = []
    while missing:
        row = dict(next(iter(missing)))
        for name, values in factors.items():
            if name not in row:
                allowed = [value for value in values if is_allowed({**row, name: value})]
                row[name] = max(allowed, key=lambda value, name=name: _num_new(missing, row, name, value))  # type: ignore[misc]
        rows.append({name: row[name] for name in factors})
        for pair in pairs_in(row):
            missing.pop(pair, None)
    return rows


def pairs_in(row: Row) -> list[Pair]:
    """The pairs of values that meet in a row."""
    return [frozenset(pair) for pair in combinations(row.items(), 2)]


def _pairs_of(factors: Mapping[str, Sequence[Any]], is_allowed: Callable[[Row], bool]) -> dict[Pair, None]:
    """In order, hence a dictionary."""
    found: dict[Pair, None] = {}
    for first, second in combinations(factors, 2):
        for values in product(factors[first], factors[second]):
            pair = dict(zip((first, second), values, strict=True))
            if is_allowed(pair):
                found[frozenset(pair.items())] = None
    return found


def _num_new(missing: Mapping[Pair, None], row: Row, name: str, value: Any) -> int:
    return sum(frozenset([(name, value), item]) in missing for item in row.items())
