"""From a model's name to a network with its weights."""

import importlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn
from torchvision import models

from pipeline.core.errors import ConfigError, unknown_name
from pipeline.core.rng import Stream, check_seed, derive_seed
from pipeline.models.network import Network
from pipeline.models.spec import REFLUX_NETWORKS, ModelSpec, require_weights
from pipeline.models.timm_models import build_from_timm, timm_state
from pipeline.models.user_file import build_from_file
from pipeline.models.weights import State, check_file, check_published, load_state, published_state, read_state

_AUXILIARY = "it is made of a main and auxiliary classifiers, and its weights expect another input normalisation"
_NOT_LINEAR = "its classifier is a convolution, not a linear layer"
_REFUSED = {
    "googlenet": _AUXILIARY,
    "inception_v3": _AUXILIARY,
    "squeezenet1_0": _NOT_LINEAR,
    "squeezenet1_1": _NOT_LINEAR,
}


def model_names() -> list[str]:
    """The names that need no prefix: torchvision's classifiers and this package's networks."""
    return sorted({*models.list_models(module=models), *REFLUX_NETWORKS} - set(_REFUSED))


def check_spec(spec: ModelSpec, *, role: Literal["teacher", "student"]) -> None:
    """Refuse what can be refused without building or fetching anything.

    Refused are unknown models and weights (timm alone knows its weights), no weights, a weights file that is missing.

    Raises:
        ConfigError: with the nearest known name, or the way to name weights.
    """
    if role == "teacher":
        require_weights(spec)
    if spec.source not in ("file", "timm"):
        _check_known(spec)
    if spec.weights_file is not None:
        check_file(spec.weights_file)
    elif not spec.is_random and spec.source == "torchvision":
        check_published(spec.name, str(spec.weights))
    elif not spec.is_random and spec.source != "timm":
        raise _none_published(spec)


def build_network(
    spec: ModelSpec, *, num_classes: int, seed: int, taps: Collection[str] = (), role: Literal["teacher", "student"]
) -> Network:
    """Build the network on the CPU, in float32 and training mode, with the weights that `spec` names.

    Random weights are a function of `seed` and the architecture: neither the global random state nor what was built
    before matters, and neither is changed.

    Args:
        spec: what to build. A student without weights starts from random ones; a teacher is refused.
        num_classes: classes of the data set; weights for another number are refused.
        seed: the run's seed.
        taps: feature maps to hand out, from the family's `tap_names()`.
        role: for whom.

    Raises:
        ConfigError: unknown name, weights that do not fit or cannot be fetched, unknown tap.
    """
    if role == "teacher":
        require_weights(spec)
    with _seeded(seed):
        network = _wrapped(spec, _built(spec, num_classes), taps)
    if network.num_classes != num_classes:
        raise ConfigError(
            f"{spec} must end in a linear layer with one output per class: its last one has {network.num_classes} "
            f"outputs, the data set has {num_classes} classes. Make the function use its argument num_classes."
        )
    if not spec.is_random:
        state = _fetched(spec, num_classes)
        load_state(network.model, state, name=f"{role} {spec}", head=network.head_path)
    return network


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which would also reset the devices' generators
        torch.default_generator.manual_seed(derive_seed(check_seed("the run's seed", seed), Stream.INITIALISATION))
        yield


def _check_known(spec: ModelSpec) -> None:
    if spec.name in _REFUSED:
        raise ConfigError(f"{spec.name} is not supported: {_REFUSED[spec.name]}.")
    if spec.name not in model_names():
        raise unknown_name("model", spec.name, model_names())


def _built(spec: ModelSpec, num_classes: int) -> nn.Module:
    if spec.source == "file":
        return build_from_file(spec.name, num_classes=num_classes)
    if spec.source == "timm":
        return build_from_timm(spec.name, num_classes=num_classes)
    _check_known(spec)
    if spec.source == "reflux":
        model: nn.Module = getattr(importlib.import_module(REFLUX_NETWORKS[spec.name]), spec.name)(
            num_classes=num_classes
        )
        return model
    return models.get_model(spec.name, weights=None, num_classes=num_classes)


def _wrapped(spec: ModelSpec, model: nn.Module, taps: Collection[str]) -> Network:
    try:
        return Network(model, taps=taps)
    except ConfigError as error:
        raise ConfigError(f"{spec}: {error}") from error


def _fetched(spec: ModelSpec, num_classes: int) -> State:
    weights = spec.weights or ""
    if spec.weights_file is not None:
        return read_state(spec.weights_file)
    if spec.source == "torchvision":
        return published_state(spec.name, weights, num_classes=num_classes)
    if spec.source == "timm":
        return timm_state(spec.name, weights, num_classes=num_classes)
    raise _none_published(spec)


def _none_published(spec: ModelSpec) -> ConfigError:
    rule = f"{spec.name} has no published weights, so '{spec.weights}' must be a file or 'random'"
    return ConfigError(f"{rule}: {spec.name}@/path/weights.pt")
