"""Records by the name of their method, which is that of their file."""

from collections.abc import Mapping
from typing import Any

from pipeline import losses
from pipeline.core import parts
from pipeline.losses._shared.record import Loss


def loss_names() -> list[str]:
    """The methods that have a record."""
    return parts.names(losses)


def loss_type(name: str) -> type[Loss]:
    """The record class of method `name`, or a refusal with what is known."""
    return parts.class_of(parts.load(losses, "method", name), Loss)


def loss_record(name: str, arguments: Mapping[str, Any]) -> Loss:
    """The record of method `name`, with its hyper-parameters as a configuration's JSON has them.

    Raises:
        ConfigError: an unknown method, hyper-parameter or base.
    """
    return loss_type(name).from_json(arguments)
