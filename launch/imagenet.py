"""Train a student, by the recipe that is named. The same command line again goes on with the run.

python launch/imagenet.py RECIPE --data DIR --out RUN [flags]

torchrun --nproc_per_node=8 launch/imagenet.py kd_r34_r18 --data /data/imagenet --out runs/a

python launch/imagenet.py RECIPE --help
"""

import functools
import inspect
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, get_origin, get_type_hints

import tyro

from launch.recipes.registry import Recipe, all_recipes, on_eight_gpus
from pipeline.config import RunConfig
from pipeline.core.command import run_command, unknown_argument
from pipeline.core.errors import ConfigError, PeerError, unknown_name

EXIT_PREEMPTED = 75
_PROGRAM = "launch/imagenet.py"
_STYLE = (tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff)


def parse_config(arguments: Sequence[str]) -> RunConfig:
    """The run configuration of a command line (without the program's name).

    Raises:
        ConfigError: unknown recipe or flag.
        SystemExit: after --help (0), or a wrong value or a missing flag (2).
    """
    recipes = all_recipes()
    if arguments and arguments[0] in recipes:
        return _parse_flags(recipes[arguments[0]], arguments[1:])
    if arguments and not arguments[0].startswith("-"):
        raise unknown_name("recipe", arguments[0], recipes)
    late = [name for name in arguments if name in recipes]
    if late and arguments[0] not in ("-h", "--help"):
        raise ConfigError(f"the recipe comes before its flags: {_PROGRAM} {late[0]} {arguments[0]} ...")
    config: RunConfig = tyro.extras.subcommand_cli_from_dict(
        {name: _in_brief(recipe) for name, recipe in recipes.items()},
        prog=_PROGRAM,
        description=__doc__,
        args=list(arguments),
        use_underscores=False,
        console_outputs=_speaks(),
        config=_STYLE,
    )
    return config


def flags_of(recipe: Recipe) -> list[str]:
    """The flags that `recipe` takes, those that switch something off left out."""
    return [f"--{name.replace('_', '-')}" for name in _flag_names(recipe)]


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


def _parse_flags(recipe: Recipe, arguments: Sequence[str]) -> RunConfig:
    command = f"{_PROGRAM} {recipe.__name__}"
    # tyro's own message for an unknown flag shows similar ones of every recipe, a screen of them
    config, unknown = tyro.cli(
        recipe,
        prog=command,
        description=f"{inspect.getdoc(recipe)}\n\n{on_eight_gpus(recipe)}",
        args=list(arguments),
        use_underscores=False,
        console_outputs=_speaks(),
        return_unknown_args=True,
        config=_STYLE,
    )
    if unknown and unknown[0].partition("=")[0] == "--teacher":
        raise ConfigError(f"{recipe.__name__} learns from labels alone: leave out --teacher, or choose another recipe")
    if unknown:
        raise unknown_argument(command, unknown[0], flags_of(recipe))
    return config


def _flag_names(kind: Any) -> Iterator[str]:
    """Of the parameters of a recipe, or the fields of a group of settings."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        inner = hint.__origin__ if get_origin(hint) is Annotated else hint
        if getattr(inner, "__annotations__", None) and inner is not RunConfig:
            yield from _flag_names(inner)
        elif name != "return" and get_origin(inner) is not ClassVar:
            named = [part.name for part in getattr(hint, "__metadata__", ()) if getattr(part, "name", None)]
            yield named[0] if named else name


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
