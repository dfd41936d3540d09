"""Recipes by name: every function of a folder's files that is decorated as one."""

from types import ModuleType

from launch.recipes._shared.recipe import Recipe
from pipeline.core import parts


def all_recipes(folder: ModuleType) -> dict[str, Recipe]:
    """Name to recipe, sorted."""
    modules = parts.load_all(folder).values()
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Recipe)]
    return {recipe.name: recipe for recipe in sorted(found, key=lambda recipe: recipe.name)}
