"""The configurations that recipes make are frozen: a run that one began goes on only with the same values.

With a checkout of commit 97e98b7, `PYTHONPATH=CHECKOUT:tests python tests/golden/test_recipe_configs.py` has written
them. A new recipe has no entry and needs none; the same line with `.` for CHECKOUT, and --new, adds it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from recorded import leaves, read, write

from launch.imagenet import all_recipes, parse_config

FILE = Path(__file__).with_name("recipe_configs.json")


def config_of(recipe: str) -> dict[str, Any]:
    """What RUN/config.json would say, by place."""
    config = parse_config([recipe, "--out", "run"])
    encoded: dict[str, Any] = json.loads(json.dumps(config.to_json()))
    return dict(leaves(encoded))


def frozen_configs() -> dict[str, dict[str, Any]]:
    """By recipe; what all share is written once."""
    recorded = read(FILE)
    every = recorded.pop("every recipe")
    return {recipe: {**every, **own} for recipe, own in recorded.items()}


def test_the_values_of_recipes_are_what_they_were() -> None:
    frozen = frozen_configs()
    assert set(frozen) <= set(all_recipes()), "a recipe has gone: command lines and runs name it"
    for recipe, before in frozen.items():
        now = config_of(recipe)
        changed = {place: (value, now.get(place, "gone")) for place, value in before.items() if now.get(place) != value}
        assert not changed, f"{recipe}: (before, now): runs that it began would be refused by it"


def record(names: list[str]) -> None:
    configs = {name: config_of(name) for name in names}
    first = configs[names[0]]
    shared = [place for place in first if all(config.get(place) == first[place] for config in configs.values())]
    every = {place: first[place] for place in shared}
    own = {name: {k: v for k, v in config.items() if k not in every} for name, config in configs.items()}
    write(FILE, {"every recipe": every, **own})


def add_new() -> None:
    recorded = read(FILE)
    every = recorded["every recipe"]
    for name in sorted(set(all_recipes()) - set(recorded)):
        recorded[name] = {place: value for place, value in config_of(name).items() if every.get(place) != value}
    write(FILE, recorded)


if __name__ == "__main__":
    add_new() if "--new" in sys.argv else record(sorted(all_recipes()))
