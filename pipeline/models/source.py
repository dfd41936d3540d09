"""What a source of models is: it knows some networks by name, builds them and fetches their published weights."""

from abc import ABC, abstractmethod
from collections.abc import Collection

from torch import nn

from pipeline.core.errors import ConfigError
from pipeline.models.weights import State


class ModelSource(ABC):
    """A file of `sources/` holds one as `SOURCE`, and its models can be named wherever a model is named.

    Attributes:
        prefix: what their names begin with on the command line, such as "timm:"; "" where they stand plain.
        form: how they are written: examples, for who has written something else.
        example_weights: what a teacher might be given.
    """

    prefix: str = ""
    form: str
    example_weights: str = "WEIGHTS"

    @staticmethod
    def split(text: str) -> tuple[str, str, str]:
        """The name with its prefix, "@" and the weights; or the name and two empty strings."""
        return text.partition("@")

    def owns(self, name: str) -> bool:
        """Whether a name, with its prefix, is this source's to build or to refuse."""
        return name.startswith(self.prefix) if self.prefix else name in self.names()

    def names(self) -> Collection[str]:
        """Those of its names that need no prefix."""
        return ()

    @staticmethod
    def misspelt(name: str) -> str | None:
        """Why no model can have such a name, now without its prefix; None where one can."""
        if name.endswith(".py"):
            return "a file needs the function that builds the network"
        if ":" in name:
            return f"'{name.partition(':')[0]}:' is no source of models"
        if not name or any(character.isspace() or character == "/" for character in name):
            return "no model has such a name"
        return None

    def check(self, name: str, published: str | None) -> None:
        """Refuse what can be refused without building or fetching anything.

        Args:
            name: of a model that this source owns, without the prefix.
            published: name of the weights; None where they are random or in a file.

        Raises:
            ConfigError: with what is known.
        """
        if published is not None:
            raise self._none_published(name, published)

    @abstractmethod
    def build(self, name: str, *, num_classes: int) -> nn.Module:
        """The network with its initial weights, from torch's global random state.

        Raises:
            ConfigError: no such network, or it cannot be built here.
        """

    def fetch(self, name: str, published: str, *, num_classes: int) -> State:
        """Published weights that have passed `check`, from a cache or from the net.

        Raises:
            ConfigError: unknown weights, weights for another number of classes, or a download that failed.
        """
        raise self._none_published(name, published)

    def _none_published(self, name: str, published: str) -> ConfigError:
        rule = f"{self.prefix}{name} has no published weights, so '{published}' must be a file or 'random'"
        return ConfigError(f"{rule}: {self.prefix}{name}@/path/weights.pt")
