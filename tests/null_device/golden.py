"""The table of a step's operations, by torch's version: `PYTHONPATH=tests python -m null_device.golden [--write]`.

Prints what has changed; with --write the table is that of today. A change is an improvement, a regression, or another
version of torch: it belongs into the message of the commit that changes the table.
"""

import argparse
import json
import tempfile
from importlib.metadata import version
from pathlib import Path

from null_device.build import HERE
from null_device.device import Counts
from null_device.workers import Worker

TABLE = HERE / "golden.json"
RECIPES = ("vanilla_r18", "kd_r34_r18", "crd_r34_r18")
COMMAND = "PYTHONPATH=tests .venv/bin/python -m null_device.golden --write"
TOLERANCE = 0.05


def torch_version() -> str:
    """As the table names it: 2.14."""
    return ".".join(version("torch").split(".")[:2])


def read_table() -> dict[str, dict[str, Counts]]:
    """Counts by torch's version and recipe."""
    table: dict[str, dict[str, Counts]] = json.loads(TABLE.read_text())
    return table


def measure(worker: Worker, recipe: str, *flags: str) -> Counts:
    """Counts of a steady step today."""
    counts: Counts = worker.run("real_pair", [recipe, flags])
    return counts


def differences(before: Counts, now: Counts) -> list[str]:
    """One line for each count that has changed."""
    names = [name for name in {**before, **now} if before.get(name, 0) != now.get(name, 0)]
    return [f"{name}: {before.get(name, 0)} -> {now.get(name, 0)}" for name in names]


def main() -> None:
    """Measure, compare, and perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the table's entries of this torch")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Worker(Path(folder)) as worker:
        today = {recipe: measure(worker, recipe) for recipe in RECIPES}
    table = read_table()
    for recipe, counts in today.items():
        changed = differences(table.get(torch_version(), {}).get(recipe, {}), counts)
        print(f"torch {torch_version()}, {recipe}: {', '.join(changed) or 'as in the table'}")
    if arguments.write:
        TABLE.write_text(json.dumps({**table, torch_version(): today}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
