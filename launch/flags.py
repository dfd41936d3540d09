"""The flags of a recipe: one for each field of its files, networks, loss and settings, by tyro."""

from collections.abc import Iterator, Sequence
from dataclasses import Field, field, fields, is_dataclass, make_dataclass, replace
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

from launch.recipes._shared.recipe import Plan, Recipe
from pipeline.config import Files, RunConfig, method_flag
from pipeline.losses._shared.record import Loss
from pipeline.losses._shared.wrapping import WrapperLoss

STYLE = (tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff)


def parse_flags(recipe: Recipe, arguments: Sequence[str], **more: Any) -> tuple[RunConfig, list[str]]:
    """The run of `recipe` with what a command line changes, and the words that belong to no flag.

    Args:
        recipe: whose name is not among the arguments.
        arguments: flags and values.
        more: passed on to tyro.
    """
    taken, unknown = tyro.cli(
        _flags_type(recipe.plan),
        args=list(arguments),
        use_underscores=False,
        return_unknown_args=True,
        config=STYLE,
        **more,
    )
    given = vars(taken)
    plan = recipe.plan
    loss = _changed(plan.loss, given)
    plan = replace(plan, loss=loss, **{item.name: given[item.name] for item in fields(plan) if item.name != "loss"})
    return plan.config(recipe.name, taken.files), unknown


def flags_of(recipe: Recipe) -> list[str]:
    """The flags that `recipe` takes, those that switch something off left out."""
    return [f"--{name.replace('_', '-')}" for name in _names(_flags_type(recipe.plan))]


def _flags_type(plan: Plan) -> type[Any]:
    """A dataclass with the groups of flags of a recipe, by default as it has them."""
    hints = get_type_hints(type(plan), include_extras=True)
    groups: list[tuple[str, Any, Field[Any]]] = []
    for item in fields(plan):
        value = getattr(plan, item.name)
        if isinstance(value, Loss):
            groups += [(name, type(own), field(default=own)) for name, own in _groups(value).items()]
        else:
            groups.append((item.name, hints[item.name], field(default=value)))
    return make_dataclass("Flags", [("files", Files), *groups], frozen=True)


def _groups(loss: Loss) -> dict[str, Any]:
    """A record's hyper-parameters, and those of its base, each as a dataclass in which they have their flags' names."""
    if not isinstance(loss, WrapperLoss):
        return {"loss": _as_flags(loss)}
    groups = {"loss": _as_flags(loss, "base"), "base": _as_flags(loss.base, *loss.base.only_alone)}
    return {name: group for name, group in groups.items() if fields(group)}


def _as_flags(record: Loss, *left_out: str) -> Any:
    """`record` without some fields, as an instance of a dataclass that tyro makes flags from."""
    hints = get_type_hints(type(record), include_extras=True)
    chosen = [item.name for item in fields(record) if item.name not in left_out]
    named = [(name, Annotated[hints[name], tyro.conf.arg(name=method_flag(name)[2:])]) for name in chosen]
    kind = make_dataclass(type(record).__name__, named, frozen=True, namespace={"__doc__": type(record).__doc__})
    return kind(**{name: getattr(record, name) for name in chosen})


def _changed(loss: Loss, given: dict[str, Any]) -> Any:
    """`loss` with what the groups of flags say of it."""
    own = vars(given["loss"]) if "loss" in given else {}
    if isinstance(loss, WrapperLoss):
        return replace(loss, base=replace(loss.base, **vars(given["base"])), **own)
    return replace(loss, **own)


def _names(kind: Any) -> Iterator[str]:
    """Of the flags of a dataclass and of the groups in it."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if is_dataclass(inner):
            yield from _names(inner)
        else:
            named = [part.name for part in getattr(hint, "__metadata__", ()) if getattr(part, "name", None)]
            yield named[0] if named else name
