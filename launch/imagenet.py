"""Train a student, by the recipe that is named. The same command line again goes on with the run.

python launch/imagenet.py RECIPE --data DIR --out RUN [flags]

torchrun --nproc_per_node=8 launch/imagenet.py kd_r34_r18 --data /data/imagenet --out runs/a

python launch/imagenet.py RECIPE --help
"""

import functools
import os
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from launch.recipes.registry import Recipe, all_recipes
from pipeline.core.command import run_command
from pipeline.core.config import RunConfig
from pipeline.core.errors import ConfigError, PeerError, unknown_name

EXIT_PREEMPTED = 75


def parse_config(arguments: Sequence[str]) -> RunConfig:
    """The run configuration of a command line (without the program's name).

    Raises:
        ConfigError: unknown recipe.
        SystemExit: after --help (0) or a wrong flag (2).
    """
    recipes = all_recipes()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in recipes:
        raise unknown_name("recipe", arguments[0], recipes)
    named = bool(arguments) and arguments[0] in recipes
    config: RunConfig = tyro.extras.subcommand_cli_from_dict(
        recipes if named else {name: _in_brief(recipe) for name, recipe in recipes.items()},
        prog="launch/imagenet.py",
        description=__doc__,
        args=list(arguments),
        use_underscores=False,
        console_outputs=_speaks(),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff),
    )
    return config


def main() -> None:
    """Parse, run, and end with 0 (done), 1 (failed), 2 (usage) or 75 (stopped early: run me again)."""
    try:
        config = parse_config(sys.argv[1:])
    except ConfigError as error:
        if not _speaks():
            sys.exit(error.exit_code)
        raise
    from pipeline.fit import fit  # torch: only when something is to be trained

    try:
        outcome = fit(config)
    except PeerError as error:
        sys.exit(error.exit_code)
    if outcome == "preempted":
        sys.exit(EXIT_PREEMPTED)


def _in_brief(recipe: Recipe) -> Recipe:
    """The recipe with the first line of its description, for a list that fits a screen."""

    @functools.wraps(recipe)
    def brief(*arguments: Any, **options: Any) -> RunConfig:
        return recipe(*arguments, **options)

    brief.__doc__ = (recipe.__doc__ or "").partition("\n")[0]
    return brief


def _speaks() -> bool:
    """Whether this rank is the one that says what every rank finds in the command line."""
    return os.environ.get("RANK", "0") == "0"


if __name__ == "__main__":
    run_command(main)
