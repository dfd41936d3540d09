"""Dataclasses from JSON, and what is in two JSON objects, place by place. Imports no torch."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from pipeline.core.errors import ConfigError


def all_numbers(value: Any, path: str) -> Iterator[tuple[str, float | list[float]]]:
    """Every number and every list of numbers of a JSON object, by its path."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from all_numbers(part, f"{path}.{name}")
    elif _is_number(value) or (isinstance(value, list) and all(map(_is_number, value))):
        yield path, value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def paired(saved: Any, now: Any, prefix: str) -> list[tuple[str, Any, Any]]:
    """Each place of two JSON objects below `prefix`, with both values; None where one has none."""
    if not (isinstance(saved, dict) and isinstance(now, dict)):
        return [(prefix, saved, now)]
    names = [*saved, *(name for name in now if name not in saved)]
    return [
        pair
        for name in names
        for pair in paired(saved.get(name), now.get(name), f"{prefix}.{name}" if prefix else name)
    ]


def decode(kind: Any, value: Any, where: str) -> Any:
    """A dataclass `kind`, nested, from its JSON object; fields that are missing have their defaults.

    Raises:
        ConfigError: a field is unknown; `where` says in what.
    """
    if is_dataclass(kind):
        hints, known = get_type_hints(kind), {item.name for item in fields(kind)}
        unknown = sorted(set(value) - known)
        if unknown:
            raise ConfigError(f"{where} has fields this version does not know: {unknown}; update Reflux")
        return kind(**{name: decode(hints[name], part, f"{where}.{name}") for name, part in value.items()})  # type: ignore[operator]
    if value is not None and Path in (kind, *get_args(kind)):
        return Path(value)
    if isinstance(value, list) and (get_origin(kind) is tuple or any(get_origin(a) is tuple for a in get_args(kind))):
        return tuple(value)
    return value
