"""The program that trains: a folder of recipes, flags made from them, and the end of a job."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from launch.flags import STYLE, flags_of, parse_flags
from launch.recipes._shared.recipe import Recipe
from launch.recipes._shared.registry import all_recipes
from pipeline.config import RunConfig
from pipeline.core.command import unknown_argument
from pipeline.core.errors import ConfigError, PeerError, unknown_name

EXIT_PREEMPTED = 75


@dataclass(frozen=True)
class Program:
    """A command line: RECIPE and its flags.

    Attributes:
        name: as people type it.
        folder: name of the package with the recipes.
        description: what --help says first.
    """

    name: str
    folder: str
    description: str

    def recipes(self) -> dict[str, Recipe]:
        """Its recipes by name."""
        return all_recipes(importlib.import_module(self.folder))

    def parse_config(self, arguments: Sequence[str]) -> RunConfig:
        """The run configuration of a command line (without the program's name).

        Raises:
            ConfigError: unknown recipe or flag.
            SystemExit: after --help (0), or a wrong value or a missing flag (2).
        """
        recipes = self.recipes()
        if arguments and arguments[0] in recipes:
            return self._parse_flags(recipes[arguments[0]], arguments[1:])
        if arguments and not arguments[0].startswith("-"):
            raise unknown_name("recipe", arguments[0], recipes)
        late = [name for name in arguments if name in recipes]
        if late and arguments[0] not in ("-h", "--help"):
            raise ConfigError(f"the recipe comes before its flags: {self.name} {late[0]} {arguments[0]} ...")
        config: RunConfig = tyro.extras.subcommand_cli_from_dict(
            {name: _in_brief(recipe) for name, recipe in recipes.items()},
            prog=self.name,
            description=self.description,
            args=list(arguments),
            use_underscores=False,
            console_outputs=_speaks(),
            config=STYLE,
        )
        return config

    def main(self) -> None:
        """Parse, run, and end with 0 (done), 1 (failed), 2 (usage) or 75 (stopped early: run me again)."""
        try:
            config = self.parse_config(sys.argv[1:])
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

    def _parse_flags(self, recipe: Recipe, arguments: Sequence[str]) -> RunConfig:
        command = f"{self.name} {recipe.name}"
        # tyro's own message for an unknown flag shows similar ones of every recipe, a screen of them
        config, unknown = parse_flags(
            recipe, arguments, prog=command, description=recipe.help(self.name), console_outputs=_speaks()
        )
        if unknown and unknown[0].partition("=")[0] == "--teacher":
            raise ConfigError(f"{recipe.name} learns from labels alone: leave out --teacher, or choose another recipe")
        if unknown:
            raise unknown_argument(command, unknown[0], flags_of(recipe))
        return config


def _in_brief(recipe: Recipe) -> Callable[[], Any]:
    """A function with the first line of the recipe's description, for a list that fits a screen."""

    def brief() -> None:
        """Never called: a recipe that is named is parsed alone."""

    brief.__doc__ = recipe.in_brief
    return brief


def _speaks() -> bool:
    """Whether this rank is the one that says what every rank finds in the command line."""
    return os.environ.get("RANK", "0") == "0"
