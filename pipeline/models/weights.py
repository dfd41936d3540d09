"""Weights from a file, and any weights fitted into a network or refused with both sides shown."""

import hashlib
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.core.errors import ConfigError

State = Mapping[str, Tensor]

_WRAPPERS = ("model", "state_dict", "student", "model_state_dict", "module")
_PREFIXES = ("module.", "_orig_mod.", "model.", "student.")
_SHOWN = 4
_OF_SIMKD = {"scale", "projector.0.weight", "head.weight"}
# DenseNet files from before torchvision 0.3 have "norm.1.weight" for "norm1.weight"
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")


def check_file(path: Path) -> None:
    """Refuse a weights file that is not there."""
    if not path.is_file():
        raise ConfigError(f"weights file not found: {path}\nGive an existing file, published weights, or 'random'.")


def read_state(path: Path) -> State:
    """The state_dict in a file: bare, or under a key such as "model" or "state_dict", as checkpoints have it.

    Raises:
        ConfigError: no such file, not a torch file, or no state_dict in it.
    """
    check_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"a weights file may hold tensors only, and {path} holds other Python objects or is no torch file.\n"
            "Save it again with torch.save(model.state_dict(), FILE)."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ConfigError(f"weights file {path} cannot be read by torch.load: {error}") from error
    return _unwrap(content, path)


def fingerprint_of_weights(model: nn.Module) -> str:
    """sha256, 64 hex digits, over names, shapes, types and bytes of all parameters and buffers, sorted by name."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(array.shape)} {array.dtype}\n".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def download_failed(model: str, url: str, error: Exception) -> ConfigError:
    """The error for weights that did not come over the net."""
    name = model.partition("@")[0]
    return ConfigError(
        f"the weights of {model} could not be fetched from {url}\n({error}).\n"
        f"Fetch that file elsewhere and give it as {name}@/path/to/{url.rpartition('/')[2]}"
    )


def check_classes(model: str, found: int, wanted: int) -> None:
    """Refuse weights whose classifier is for another number of classes; no head is ever replaced silently."""
    if found != wanted:
        raise ConfigError(
            f"the classes of {model} and of the data set must be the same: the weights have {found} classes, "
            f"the data set has {wanted}.\nGive weights that were trained on these classes; "
            "a student may also start from random weights (no '@')."
        )


def load_state(model: nn.Module, state: State, *, name: str, head: str) -> None:
    """Copy `state` into `model`, every key of it.

    Args:
        model: network as built; its values are replaced.
        state: keys with or without the prefixes that DDP, torch.compile and Reflux's own modules add.
        name: the model as the user wrote it, for messages.
        head: path of the classifier in `model`.

    Raises:
        ConfigError: keys missing or left over, shapes that differ, another number of classes.
    """
    own = model.state_dict()
    fitting = _fit_keys(state, own)
    found = fitting.get(f"{head}.weight")
    if found is not None and found.ndim == 2:
        check_classes(name, len(found), len(own[f"{head}.weight"]))
    try:
        outcome = model.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        missing, extra = (sorted(one.keys() - other.keys()) for one, other in ((own, fitting), (fitting, own)))
        raise _misfit(name, missing, extra, _other_shapes(fitting, own)) from error
    if outcome.missing_keys or outcome.unexpected_keys:
        raise _misfit(name, outcome.missing_keys, outcome.unexpected_keys, [])


def _unwrap(content: Any, path: Path) -> State:
    for _ in range(3):
        if not isinstance(content, dict):
            break
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return content
        wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), dict)), None)
        content = content[wrapper] if wrapper else None
    raise ConfigError(
        f"no state_dict in {path}: a weights file is a state_dict, or a dict that holds one under one of the keys "
        f"{', '.join(_WRAPPERS)}."
    )


def _fit_keys(state: State, own: State) -> "OrderedDict[str, Tensor]":
    """`state` under the network's own names: strips wrappers' prefixes until a key matches."""
    names = {key: _OLD_DENSENET.sub(r"\1", key) for key in state}
    student = {key: name for key, name in names.items() if name.startswith("student.")}
    if student and not _match(names, own):
        names = student
    while not _match(names, own):
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in names.values())), None)
        if prefix is None or not names:
            break
        names = {key: name.removeprefix(prefix) for key, name in names.items()}
    fitted = OrderedDict((name, state[key]) for key, name in names.items())
    # versions of the layers, by which modules convert weights of older releases
    metadata = getattr(state, "_metadata", None) if list(state) == list(fitted) else None
    fitted._metadata = metadata or getattr(own, "_metadata", None)  # type: ignore[attr-defined]
    return fitted


def _match(names: Mapping[str, str], own: State) -> bool:
    return any(name in own for name in names.values())


def _other_shapes(state: State, own: State) -> list[str]:
    return [
        f"{key}: weights {tuple(value.shape)}, network {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]


def _misfit(name: str, missing: list[str], extra: list[str], shapes: list[str]) -> ConfigError:
    differing = f"  of another shape: {_shortened(shapes)}\n" if shapes else ""
    remedy = "Give the file that belongs to this model."
    if set(extra) >= _OF_SIMKD:
        remedy = "It is a SimKD student, with its projector and its teacher's classifier: read it with"
        remedy += " pipeline.methods.simkd.restore(NETWORK, STATE)."
    return ConfigError(
        f"weights must have exactly the layers of the network: those of {name} do not fit.\n"
        f"  in the network, not in the weights: {_shortened(missing)}\n"
        f"  in the weights, not in the network: {_shortened(extra)}\n"
        f"{differing}{remedy}"
    )


def _shortened(keys: list[str]) -> str:
    more = f"; and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return "; ".join(keys[:_SHOWN]) + more if keys else "nothing"
