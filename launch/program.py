"""The program that trains: a folder of recipes, flags made from them, and the end of a job."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import tyro

from launch.flags import STYLE, flags_of, parse_flags
from launch.recipes._shared.recipe import Recipe
from launch.recipes._shared.registry import all_recipes
from pipeline.config import RunConfig
from pipeline.core.command import Outcome, said_once, speaks, unknown_argument
from pipeline.core.errors import ConfigError, unknown_name


@dataclass(frozen=True)
class Program:
    """A command line: RECIPE and its flags.

    Attributes:
        name: as people type it.
        folder: package with the recipes.
        description: what --help says first.
    """

    name: str
    folder: ModuleType
    description: str

    def recipes(self) -> dict[str, Recipe]:
        """Its recipes by name."""
        return all_recipes(self.folder)

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
            console_outputs=speaks(),
            config=STYLE,
        )
        return config

    def main(self) -> Outcome:
        """Parse, run, and say how it ended: "done", or "preempted" (run me again)."""
        with said_once():
            config = self.parse_config(sys.argv[1:])
        from pipeline.fit import fit  # torch: only when something is to be trained

        return fit(config)

    def _parse_flags(self, recipe: Recipe, arguments: Sequence[str]) -> RunConfig:
        command = f"{self.name} {recipe.name}"
        # tyro's own message for an unknown flag shows similar ones of every recipe, a screen of them
        config, unknown = parse_flags(
            recipe, arguments, prog=command, description=recipe.help(self.name), console_outputs=speaks()
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
