"""From a model's name to a network with its weights."""

from collections.abc import Collection

from torch import nn

from pipeline.core.errors import ConfigError
from pipeline.devices.device_rng import initialising
from pipeline.models.network import Network
from pipeline.models.spec import ModelSpec
from pipeline.models.weights import State, load_state, read_state


def build_network(spec: ModelSpec, *, num_classes: int, seed: int, taps: Collection[str] = ()) -> Network:
    """Build the network on the CPU, in float32 and training mode, with the weights that `spec` names.

    Random weights are a function of `seed` and the architecture: neither the global random state nor what was built
    before matters, and neither is changed.

    Args:
        spec: what to build. A student without weights starts from random ones; a teacher is refused.
        num_classes: classes of the data set; weights for another number are refused.
        seed: the run's seed.
        taps: feature maps to hand out, from the family's `tap_names()`.

    Raises:
        ConfigError: unknown name, weights that do not fit or cannot be fetched, unknown tap.
    """
    spec.check()
    with initialising(seed):
        network = _wrapped(spec, spec.source.build(spec.name, num_classes=num_classes), taps)
    if network.num_classes != num_classes:
        raise ConfigError(
            f"{spec} must end in a linear layer with one output per class: its last one has {network.num_classes} "
            f"outputs, the data set has {num_classes} classes. Make the function use its argument num_classes."
        )
    state = _state(spec, num_classes)
    if state is not None:
        load_state(network.model, state, name=f"{spec.role} {spec}", head=network.head_path)
    return network


def _wrapped(spec: ModelSpec, model: nn.Module, taps: Collection[str]) -> Network:
    try:
        return Network(model, taps=taps)
    except ConfigError as error:
        raise ConfigError(f"{spec}: {error}") from error


def _state(spec: ModelSpec, num_classes: int) -> State | None:
    if spec.weights_file is not None:
        return read_state(spec.weights_file)
    return None if spec.published is None else spec.source.fetch(spec.name, spec.published, num_classes=num_classes)
