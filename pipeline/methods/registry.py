"""Methods by name."""

import inspect
from typing import Any

from pipeline import methods
from pipeline.core import folder
from pipeline.core.errors import ConfigError
from pipeline.methods.base import Method

_NOT_METHODS = ("base", "parts", "registry")


def method_names() -> list[str]:
    """The methods of this folder."""
    return [name for name in folder.names(methods) if name not in _NOT_METHODS]


def build_method(name: str, arguments: dict[str, Any]) -> Method:
    """Make method `name` with its hyper-parameters, or refuse an unknown name or argument."""
    kind: type[Method] = folder.load(methods, "method", name, known=method_names()).METHOD
    known = list(inspect.signature(kind).parameters)
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ConfigError(f"method '{name}' has no hyper-parameter {unknown}; it has {known}")
    return kind(**arguments)
