"""What a model is called on the command line, NAME or NAME@WEIGHTS, and whose it is: one of `sources/`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from pipeline.core import parts
from pipeline.core.errors import ConfigError, unknown_name
from pipeline.models import sources
from pipeline.models.source import ModelSource
from pipeline.models.weights import check_file

Role = Literal["teacher", "student"]

RANDOM = "random"
_FILE_SUFFIXES = frozenset({".pt", ".pth", ".tar", ".bin", ".ckpt", ".safetensors"})


@dataclass(frozen=True)
class ModelSpec:
    """A model's name and where its weights come from; `str` of it is what the command line had.

    Attributes:
        source: who builds the network.
        name: the source's name for it, without a prefix; of a user's own file path/file.py:function.
        weights: "random", the name of published weights, or the path of a file; None where no '@' was given.
        role: for whom it is built.
    """

    source: ModelSource
    name: str
    weights: str | None
    role: Role = "student"

    def __str__(self) -> str:
        suffix = "" if self.weights is None else f"@{self.weights}"
        return f"{self.source.prefix}{self.name}{suffix}"

    @property
    def weights_file(self) -> Path | None:
        """The file that holds the weights, where they are not published ones or random."""
        if self.weights is None or self.weights == RANDOM:
            return None
        path = Path(self.weights).expanduser()
        looks_like_file = "/" in self.weights or path.suffix in _FILE_SUFFIXES or path.is_file()
        return path if looks_like_file else None

    @property
    def published(self) -> str | None:
        """The name of published weights, where it has such."""
        return None if self.weights == RANDOM or self.weights_file is not None else self.weights

    def check(self) -> None:
        """Refuse what can be refused without building or fetching anything.

        Raises:
            ConfigError: an unknown name, with the nearest; a teacher without weights; unknown weights, a missing file.
        """
        if self.role == "teacher" and self.weights is None:
            raise ConfigError(
                f"a teacher needs weights, and '{self}' names none.\n"
                f"Write --teacher {self}@{self.source.example_weights}, or --teacher {self}@/path/weights.pth,"
                f" or {self}@random for tests."
            )
        self.source.check(self.name, self.published)
        if self.weights_file is not None:
            check_file(self.weights_file)


def resolve_model(text: str, *, role: Role) -> ModelSpec:
    """The model that the command line names, checked as far as that goes without building or fetching anything.

    Raises:
        ConfigError: text that is no model, with the forms that are; and what `ModelSpec.check` refuses.
    """
    spec = parse_spec(text, role=role)
    spec.check()
    return spec


def parse_spec(text: str, *, role: Role = "student") -> ModelSpec:
    """As `resolve_model`, without `ModelSpec.check`: for a model that may never be built."""
    source = next(one for one in (*model_sources(), _Nobody()) if one.owns(one.split(text)[0]))
    name, at, rest = source.split(text)
    own, weights = name.removeprefix(source.prefix), rest if at else None
    reason = _blank(name, weights) or source.misspelt(own)
    if reason is not None:
        forms = ", ".join(one.form for one in model_sources())
        raise ConfigError(f"'{text}' is not a model: {reason}.\nWrite a model as NAME or NAME@WEIGHTS: {forms}.")
    return ModelSpec(source, own, weights, role)


class _Nobody(ModelSource):
    """Of the names that no source owns."""

    def owns(self, name: str) -> bool:
        return True

    def check(self, name: str, published: str | None) -> None:
        raise unknown_name("model", name, model_names())

    def build(self, name: str, *, num_classes: int) -> nn.Module:
        raise unknown_name("model", name, model_names())


def model_sources() -> list[ModelSource]:
    """Of each file of the folder its source; a name that two of them own is the first one's."""
    return [file.SOURCE for file in parts.load_all(sources).values()]


def model_names() -> list[str]:
    """The names that need no prefix."""
    return sorted({name for source in model_sources() for name in source.names()})


def _blank(name: str, weights: str | None) -> str | None:
    if not name.strip():
        return "the name is empty"
    if weights is not None and not weights.strip():
        return "the weights after '@' is empty"
    return None if name == name.strip() else "it has spaces around the name"
