"""What a model is called on the command line: NAME, NAME@WEIGHTS, timm:NAME@WEIGHTS, file.py:function@WEIGHTS.

Imports no torch, so that the command line can refuse a spelling before anything heavy is loaded.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.core.errors import ConfigError

ModelSource = Literal["torchvision", "timm", "file", "reflux"]

RANDOM = "random"
# The networks of this package and the modules that hold a function of that name.
REFLUX_NETWORKS = {
    "demo_student": "pipeline.models.demo",
    "demo_teacher": "pipeline.models.demo",
    "mobilenet_v1": "pipeline.models.mobilenet_v1",
}
_TIMM = "timm:"
_PYTHON_FILE = ".py:"
_FILE_SUFFIXES = frozenset({".pt", ".pth", ".tar", ".bin", ".ckpt", ".safetensors"})
_HOW_TO_WRITE = (
    "Write a model as NAME or NAME@WEIGHTS: resnet34@IMAGENET1K_V1, resnet18, resnet34@/path/weights.pth,\n"
    "mobilenet_v1@random, timm:NAME@WEIGHTS, or path/file.py:function@weights.pt."
)


@dataclass(frozen=True)
class ModelSpec:
    """A model's name and where its weights come from.

    Attributes:
        source: who builds the network; "reflux" is this package, "file" a function in the user's own file.
        name: the model's name; for "file" it is path/file.py:function.
        weights: "random", the name of published weights, or the path of a file; None where no '@' was given.
    """

    source: ModelSource
    name: str
    weights: str | None

    def __str__(self) -> str:
        prefix = _TIMM if self.source == "timm" else ""
        suffix = "" if self.weights is None else f"@{self.weights}"
        return f"{prefix}{self.name}{suffix}"

    @property
    def is_random(self) -> bool:
        """Whether the weights are drawn from the seed."""
        return self.weights is None or self.weights == RANDOM

    @property
    def weights_file(self) -> Path | None:
        """The file that holds the weights, where they are not published ones or random."""
        if self.weights is None or self.is_random:
            return None
        path = Path(self.weights).expanduser()
        looks_like_file = "/" in self.weights or path.suffix in _FILE_SUFFIXES or path.is_file()
        return path if looks_like_file else None


def parse_spec(text: str) -> ModelSpec:
    """Read a model as the command line writes it; `str` of the result is the same text.

    Raises:
        ConfigError: text that is no model, with the forms that are.
    """
    name, has_weights, weights = _split(text)
    if not name or name != name.strip() or (has_weights and not weights.strip()):
        missing = "name" if not name.strip() else "weights after '@'" if has_weights and not weights.strip() else ""
        raise _bad(text, f"the {missing} is empty" if missing else "it has spaces around the name")
    chosen = weights if has_weights else None
    if _PYTHON_FILE in name:
        return ModelSpec("file", _checked_function(text, name), chosen)
    if name.startswith(_TIMM):
        return ModelSpec("timm", _checked_name(text, name.removeprefix(_TIMM)), chosen)
    return ModelSpec("reflux" if name in REFLUX_NETWORKS else "torchvision", _checked_name(text, name), chosen)


def require_weights(spec: ModelSpec) -> None:
    """Refuse a teacher whose weights were not named.

    Raises:
        ConfigError: no '@' in the text.
    """
    if spec.weights is None:
        weights = "IMAGENET1K_V1" if spec.source == "torchvision" else "WEIGHTS"
        raise ConfigError(
            f"a teacher needs weights, and '{spec}' names none.\n"
            f"Write --teacher {spec}@{weights}, or --teacher {spec}@/path/weights.pth, or {spec}@random for tests."
        )


def _split(text: str) -> tuple[str, str, str]:
    # a folder may have an '@' in its name: the one that counts comes after the function's name
    start = max(0, text.find(_PYTHON_FILE))
    name, at, weights = text[start:].partition("@")
    return text[:start] + name, at, weights


def _checked_name(text: str, name: str) -> str:
    if name.endswith(".py"):
        raise _bad(text, "a file needs the function that builds the network")
    if ":" in name:
        raise _bad(text, f"'{name.partition(':')[0]}:' is no source of models")
    if not name or any(character.isspace() or character == "/" for character in name):
        raise _bad(text, "no model has such a name")
    return name


def _checked_function(text: str, name: str) -> str:
    function = name.rpartition(_PYTHON_FILE)[2]
    if not function.isidentifier():
        raise _bad(text, f"'{function}' is no function's name")
    return name


def _bad(text: str, reason: str) -> ConfigError:
    return ConfigError(f"'{text}' is not a model: {reason}.\n{_HOW_TO_WRITE}")
