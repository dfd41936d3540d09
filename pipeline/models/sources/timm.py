"""timm's networks, where timm is installed; the one place that knows its API."""

import difflib
from types import ModuleType
from typing import Any

from torch import nn

from pipeline.core.errors import ConfigError, MissingPackageError, unknown_name
from pipeline.models.source import ModelSource
from pipeline.models.weights import State, check_classes, download_failed

_DEFAULT_TAGS = ("pretrained", "DEFAULT")


class _Timm(ModelSource):
    prefix = "timm:"
    form = "timm:NAME@WEIGHTS"

    def check(self, name: str, published: str | None) -> None:
        """Refuses nothing: timm takes seconds to import, and is asked when the network is built."""

    def build(self, name: str, *, num_classes: int) -> nn.Module:
        timm = _timm()
        if not timm.is_model(name):
            near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4)) or "none"
            raise ConfigError(f"timm has no model '{name}'. Nearest: {near}; all: timm.list_models()")
        try:
            return timm.create_model(name, pretrained=False, num_classes=num_classes)
        except RuntimeError as error:
            raise ConfigError(f"timm cannot build {name}: {error}") from error

    def fetch(self, name: str, published: str, *, num_classes: int) -> State:
        """`published` is a tag such as a1_in1k, or "pretrained" for timm's default."""
        timm, full = _timm(), f"timm:{name}@{published}"
        tagged = name if published in _DEFAULT_TAGS else f"{name}.{published}"
        known = timm.list_pretrained(f"{name}.*") or timm.list_pretrained(name)
        tags = [entry.partition(".")[2] for entry in known]
        if published not in (*_DEFAULT_TAGS, *tags) or not known:
            raise unknown_name(f"weights of timm:{name}", published, [*tags, "random"])
        config: Any = timm.get_pretrained_cfg(tagged)
        check_classes(full, config.num_classes, num_classes)
        url = config.url or f"https://huggingface.co/{config.hf_hub_id}/resolve/main/pytorch_model.bin"
        try:
            return timm.create_model(tagged, pretrained=True).state_dict()
        except Exception as error:  # whatever the hub's client raises
            raise download_failed(full, url, error) from error


SOURCE = _Timm()


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise MissingPackageError("timm (for models called timm:NAME)", "pip install timm") from error
    return timm
