"""A network that the user wrote: `path/file.py:function`.

The file is imported by itself: it can import installed packages, not its neighbours.
"""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from pipeline.core.errors import ConfigError, unknown_name
from pipeline.models.source import ModelSource

_FUNCTION = ".py:"


class _File(ModelSource):
    form = "path/file.py:function@weights.pt"

    @staticmethod
    def split(text: str) -> tuple[str, str, str]:
        # a folder may have an '@' in its name: the one that counts comes after the function's name
        start = max(0, text.find(_FUNCTION))
        name, at, weights = text[start:].partition("@")
        return text[:start] + name, at, weights

    def owns(self, name: str) -> bool:
        return _FUNCTION in name

    @staticmethod
    def misspelt(name: str) -> str | None:
        function = name.rpartition(_FUNCTION)[2]
        return None if function.isidentifier() else f"'{function}' is no function's name"

    def build(self, name: str, *, num_classes: int) -> nn.Module:
        """What the file's function returns for `num_classes`."""
        path, _, function = name.rpartition(":")
        build = _function(_imported(Path(path).expanduser()), path, function)
        try:
            inspect.signature(build).bind(num_classes=num_classes)
        except TypeError as error:
            raise ConfigError(f"{name} must be callable as {function}(num_classes=...): {error}") from error
        try:
            model = build(num_classes=num_classes)
        except Exception as error:
            raise ConfigError(f"{name} failed: {_where(error, path)}") from error
        if not isinstance(model, nn.Module):
            raise ConfigError(f"{name} must return a torch.nn.Module, it returned {type(model).__name__}")
        return model


SOURCE = _File()


def _imported(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"no such file: {path} (from the model name '{path}:...'); give the path of a Python file")
    module_name = f"reflux_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{path} cannot be imported: {_where(error, str(path))}") from error
    return module


def _function(module: ModuleType, path: str, name: str) -> Callable[..., Any]:
    functions = {key for key, value in vars(module).items() if callable(value) and not key.startswith("_")}
    if name not in functions:
        raise unknown_name(f"function in {path}", name, functions)
    return getattr(module, name)


def _where(error: Exception, path: str) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(Path(path).name)]
    line = f"line {frames[-1].lineno}: " if frames else ""
    return f"{line}{type(error).__name__}: {error}"
