"""Parts found by file name: a new file in a folder is a new part, without a registration line.

Names that begin with "_" are no parts: what the parts of a folder share lies in its `_shared/`.
"""

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from pipeline.core.errors import unknown_name


def names(package: ModuleType) -> list[str]:
    """The parts of a package's folder, sorted: its modules but those that begin with `_`. Imports none of them."""
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def load(package: ModuleType, kind: str, name: str) -> ModuleType:
    """Import module `name` of `package`, or refuse the name, listing all names and the nearest of them."""
    if name not in names(package):
        raise unknown_name(kind, name, names(package))
    return importlib.import_module(f"{package.__name__}.{name}")


def class_of(module: ModuleType, kind: type[Any]) -> type[Any]:
    """The one public class of a part's file that is a `kind`; imported ones do not count.

    Raises:
        TypeError: there is none, or several.
    """
    own = [value for name, value in vars(module).items() if isinstance(value, type) and not name.startswith("_")]
    found = [value for value in own if issubclass(value, kind) and value.__module__ == module.__name__]
    if len(found) != 1:
        names = ", ".join(value.__name__ for value in found) or "none"
        raise TypeError(f"{module.__name__} must have one public class that is a {kind.__name__}, has {names}")
    return found[0]


def load_all(package: ModuleType) -> dict[str, ModuleType]:
    """Every part by its name."""
    return {name: importlib.import_module(f"{package.__name__}.{name}") for name in names(package)}
