"""Parts found by file name: a new file in a folder is a new part, without a registration line.

Names that begin with "_" are no parts: what the parts of a folder share lies in its `_shared/`.
"""

import importlib
import pkgutil
from types import ModuleType

from pipeline.core.errors import unknown_name


def names(package: ModuleType) -> list[str]:
    """The module names in a package's folder, sorted. Imports none of them."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def load(package: ModuleType, kind: str, name: str, *, known: list[str] | None = None) -> ModuleType:
    """Import module `name` of `package`, or refuse the name, listing `known` (all names) and the nearest of them."""
    known = names(package) if known is None else known
    if name not in known:
        raise unknown_name(kind, name, known)
    return importlib.import_module(f"{package.__name__}.{name}")


def load_all(package: ModuleType) -> dict[str, ModuleType]:
    """Every part by its name."""
    return {name: importlib.import_module(f"{package.__name__}.{name}") for name in names(package)}
