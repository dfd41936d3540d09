"""What a module says of itself, read from its file without running it."""

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def first_line_of(module: str) -> str:
    """Of its docstring."""
    return (ast.get_docstring(_parsed(module)) or "").partition("\n")[0]


def constant_of(module: str, name: str) -> Any:
    """The literal that is assigned to `name` at the module's top level."""
    for statement in _parsed(module).body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == name for target in statement.targets
        ):
            return ast.literal_eval(statement.value)
    raise LookupError(f"{module} has no {name}")


def _parsed(module: str) -> ast.Module:
    found = find_spec(module)
    return ast.parse(Path(str(found and found.origin)).read_text())
