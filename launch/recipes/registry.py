"""Recipes by name: every public function of this folder's files that returns a RunConfig."""

import importlib
import inspect
from collections.abc import Callable

from launch import recipes
from pipeline.core import folder
from pipeline.core.config import RunConfig

Recipe = Callable[..., RunConfig]
_NOT_RECIPES = ("code_bases", "feature_losses", "losses", "registry")


def all_recipes() -> dict[str, Recipe]:
    """Name to function, sorted."""
    found: dict[str, Recipe] = {}
    for module_name in (name for name in folder.names(recipes) if name not in _NOT_RECIPES):
        module = importlib.import_module(f"{recipes.__name__}.{module_name}")
        functions = [function for _, function in inspect.getmembers(module, inspect.isfunction)]
        own = [function for function in functions if function.__module__ == module.__name__]
        found.update({f.__name__: f for f in own if _is_recipe(f)})
    return dict(sorted(found.items()))


def _is_recipe(function: Callable[..., object]) -> bool:
    return not function.__name__.startswith("_") and function.__annotations__.get("return") is RunConfig
