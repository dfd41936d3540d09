"""torchvision's classifiers and their published weights."""

import http.client
import sys
from collections.abc import Collection

from torch import nn
from torchvision import models

from pipeline.core.errors import ConfigError, unknown_name
from pipeline.models.source import ModelSource
from pipeline.models.weights import State, check_classes, download_failed

_AUXILIARY = "it is made of a main and auxiliary classifiers, and its weights expect another input normalisation"
_NOT_LINEAR = "its classifier is a convolution, not a linear layer"
_REFUSED = {
    "googlenet": _AUXILIARY,
    "inception_v3": _AUXILIARY,
    "squeezenet1_0": _NOT_LINEAR,
    "squeezenet1_1": _NOT_LINEAR,
}


class _Torchvision(ModelSource):
    form = "resnet34@IMAGENET1K_V1, resnet18, resnet34@/path/weights.pth"
    example_weights = "IMAGENET1K_V1"

    def names(self) -> Collection[str]:
        return set(models.list_models(module=models)) - _REFUSED.keys()

    def owns(self, name: str) -> bool:
        return name in _REFUSED or super().owns(name)

    def check(self, name: str, published: str | None) -> None:
        if name in _REFUSED:
            raise ConfigError(f"{name} is not supported: {_REFUSED[name]}.")
        if published is not None and published not in (known := models.get_model_weights(name).__members__):
            raise unknown_name(f"weights of {name}", published, [*known, "random", "FILE"])

    def build(self, name: str, *, num_classes: int) -> nn.Module:
        return models.get_model(name, weights=None, num_classes=num_classes)

    def fetch(self, name: str, published: str, *, num_classes: int) -> State:
        chosen = models.get_model_weights(name)[published]
        check_classes(f"{name}@{published}", len(chosen.meta["categories"]), num_classes)
        try:
            return chosen.get_state_dict(progress=sys.stderr.isatty(), check_hash=True)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise download_failed(f"{name}@{published}", chosen.url, error) from error


SOURCE = _Torchvision()
