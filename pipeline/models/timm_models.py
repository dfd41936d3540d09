"""timm's networks, where timm is installed; the one place that knows its API."""

import difflib
from types import ModuleType
from typing import Any

from torch import nn

from pipeline.core.errors import ConfigError, MissingPackageError, unknown_name
from pipeline.models.weights import State, check_classes, download_failed

_DEFAULT_TAGS = ("pretrained", "DEFAULT")


def build_from_timm(name: str, *, num_classes: int) -> nn.Module:
    """A timm network with its initial weights.

    Raises:
        MissingPackageError: timm is not installed.
        ConfigError: timm knows no such network.
    """
    timm = _timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4)
        raise ConfigError(f"timm has no model '{name}'. Nearest: {', '.join(near) or 'none'}; all: timm.list_models()")
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    except RuntimeError as error:
        raise ConfigError(f"timm cannot build {name}: {error}") from error
    return model


def timm_state(name: str, weights: str, *, num_classes: int) -> State:
    """Published weights of a timm network.

    Args:
        name: the network, without a tag.
        weights: the tag, such as a1_in1k, or "pretrained" for timm's default.

    Raises:
        ConfigError: unknown tag, weights for another number of classes, or a download that failed.
    """
    timm = _timm()
    tagged = name if weights in _DEFAULT_TAGS else f"{name}.{weights}"
    known = timm.list_pretrained(f"{name}.*") or timm.list_pretrained(name)
    tags = [entry.partition(".")[2] for entry in known]
    if weights not in (*_DEFAULT_TAGS, *tags) or not known:
        raise unknown_name(f"weights of timm:{name}", weights, [*tags, "random"])
    config: Any = timm.get_pretrained_cfg(tagged)
    check_classes(f"timm:{name}@{weights}", config.num_classes, num_classes)
    url = config.url or f"https://huggingface.co/{config.hf_hub_id}/resolve/main/pytorch_model.bin"
    try:
        state: State = timm.create_model(tagged, pretrained=True).state_dict()
    except Exception as error:  # whatever the hub's client raises
        raise download_failed(f"timm:{name}@{weights}", url, error) from error
    return state


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise MissingPackageError("timm (for models called timm:NAME)", "pip install timm") from error
    module: ModuleType = timm
    return module
