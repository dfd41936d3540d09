"""Methods by name.

A method's file has `METHOD`, its class; `INFO`, what is published; and, where public code gives it weights, `PRESETS`:
hyper-parameters by code base. The argument "preset" names one of them; arguments given beside it win.
"""

import inspect
from types import ModuleType
from typing import Any

from pipeline import methods
from pipeline.core import parts
from pipeline.core.errors import ConfigError, unknown_name
from pipeline.methods.base import Method

_NOT_METHODS = ("__main__", "base", "negatives", "parts", "registry", "summary", "wrapper")


def method_names() -> list[str]:
    """The methods of this folder."""
    return [name for name in parts.names(methods) if name not in _NOT_METHODS]


def method_module(name: str) -> ModuleType:
    """The file of method `name`, or a refusal with what is known."""
    return parts.load(methods, "method", name, known=method_names())


def build_method(name: str, arguments: dict[str, Any]) -> Method:
    """Make method `name` with its hyper-parameters, or refuse an unknown name, preset or argument."""
    kind: type[Method] = method_module(name).METHOD
    given = expanded(name, arguments)
    known = list(inspect.signature(kind).parameters)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(f"method '{name}' has no hyper-parameter {unknown}; it has {known}")
    return kind(**given)


def expanded(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """`arguments` of method `name` with those of their preset, over which they win; or a refusal of an unknown one."""
    own = {key: value for key, value in arguments.items() if key != "preset"}
    preset = arguments.get("preset")
    if preset is None:
        return own
    presets: dict[str, dict[str, Any]] = getattr(method_module(name), "PRESETS", {})
    if preset not in presets:
        raise unknown_name(f"preset of method '{name}'", str(preset), presets)
    return {**presets[preset], **own}
