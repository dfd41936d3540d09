"""This package's own networks: the `NETWORKS` of the files in `families/`, each a function of `num_classes`."""

from collections.abc import Callable, Collection

from torch import nn

from pipeline.core import parts
from pipeline.models import families
from pipeline.models.source import ModelSource


class _Reflux(ModelSource):
    form = "mobilenet_v1@random"

    def names(self) -> Collection[str]:
        return _networks().keys()

    def build(self, name: str, *, num_classes: int) -> nn.Module:
        return _networks()[name](num_classes=num_classes)


SOURCE = _Reflux()


def _networks() -> dict[str, Callable[..., nn.Module]]:
    return {network.__name__: network for file in parts.load_all(families).values() for network in file.NETWORKS}
