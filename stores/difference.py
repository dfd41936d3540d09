"""Where two manifests differ: the first entry of the identity, with both values."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from stores.manifest import Manifest

_SHOWN = 200


@dataclass(frozen=True)
class Difference:
    """One entry that differs.

    Attributes:
        entry: its place, such as "plan_seed", "teacher.precision" or "classes[17]".
        first: JSON text of one side, shortened; "missing" where it has no such entry.
        second: of the other side.
    """

    entry: str
    first: str
    second: str


def first_difference(first: Manifest, second: Manifest) -> Difference | None:
    """The first entry that makes two stores different; None where their fingerprints are equal."""
    recorded_alike = replace(second, measured=first.measured, made_with=first.made_with)
    left, right = (dict(_leaves(manifest)) for manifest in (first, recorded_alike))
    for entry in [*left, *(entry for entry in right if entry not in left)]:
        texts = [side.get(entry, "missing") for side in (left, right)]
        if texts[0] != texts[1]:
            return Difference(entry, *(text if len(text) <= _SHOWN else text[:_SHOWN] + "..." for text in texts))
    return None


def _leaves(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Every number, string, and empty list or object of the manifest by its place, as JSON text."""
    found = json.loads(manifest.to_text())
    for item in fields(manifest):
        yield from _walk(item.name, found[item.name])


def _walk(entry: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _walk(f"{entry}.{key}", part)
    elif isinstance(value, list) and value:
        for number, part in enumerate(value):
            yield from _walk(f"{entry}[{number}]", part)
    else:
        yield entry, json.dumps(value)
