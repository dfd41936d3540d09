"""Methods by name, which is that of their file; `pipeline/losses` has a record of the same name for each."""

from collections.abc import Mapping
from typing import Any

from pipeline import methods
from pipeline.core import parts
from pipeline.losses._shared.record import Loss
from pipeline.losses._shared.registry import loss_record
from pipeline.methods._shared.method import Method


def method_names() -> list[str]:
    """The methods of the folder."""
    return parts.names(methods)


def method_of(loss: Loss) -> Method[Any]:
    """The method that a record describes, or a refusal of a record that no file of the folder is for."""
    return parts.class_of(parts.load(methods, "method", loss.name), Method)(loss)


def build_method(name: str, arguments: Mapping[str, Any]) -> Method[Any]:
    """Method `name` with its hyper-parameters as a configuration's JSON has them.

    Raises:
        ConfigError: an unknown name, hyper-parameter or base; a number outside of its range.
    """
    return method_of(loss_record(name, arguments))
