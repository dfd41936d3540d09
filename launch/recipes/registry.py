"""Recipes by name: every public function of this folder's files that returns a RunConfig."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

from launch import recipes
from pipeline.config import Files, RunConfig
from pipeline.core import parts

Recipe = Callable[..., RunConfig]
_GPUS, _BUSY = 8, 256  # images on each, from which a step of these networks outlasts its launches
_LARGE_SIDE = 128  # px
_NOT_RECIPES = ("code_bases", "feature_losses", "losses", "registry")


def all_recipes() -> dict[str, Recipe]:
    """Name to function, sorted."""
    found: dict[str, Recipe] = {}
    for module_name in (name for name in parts.names(recipes) if name not in _NOT_RECIPES):
        module = importlib.import_module(f"{recipes.__name__}.{module_name}")
        functions = [function for _, function in inspect.getmembers(module, inspect.isfunction)]
        own = [function for function in functions if function.__module__ == module.__name__]
        found.update({f.__name__: f for f in own if _is_recipe(f)})
    return dict(sorted(found.items()))


def on_eight_gpus(recipe: Recipe) -> str:
    """Which batch keeps a machine's eight GPUs busy with a recipe's networks, for --help; "" for small networks."""
    config = recipe(Files(out=Path("RUN")))
    batch, part = config.optimisation.batch, config.optimisation.max_micro_batch
    if config.views.resolution < _LARGE_SIDE or batch // _GPUS >= _BUSY:
        return ""
    images = part or batch // _GPUS
    flags, price = f"--batch {_GPUS * _BUSY}", "with --lr scaled to it"
    if part is not None:
        flags, price = f"{flags} --max-micro-batch {_BUSY}", "with another weight of the loss"
    return (
        f"On {_GPUS} GPUs: launching a micro-batch of {images} images is likely to take the host longer than running it"
        f" takes a large GPU (--dry-run measures both); {flags}, {price}, keeps them busy."
    )


def _is_recipe(function: Callable[..., object]) -> bool:
    return not function.__name__.startswith("_") and function.__annotations__.get("return") is RunConfig
