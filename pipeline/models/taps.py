"""Taps: intermediate values read by hooks, safe from layers that overwrite their input.

torchvision's ReLUs work in place, and a ResNet block runs one ReLU module twice. A hook on such a module's input holds
memory that the ReLU then overwrites, so that "pre-activation" maps come out rectified. Here a tapped activation is
switched to a fresh output, and of several calls of one module the last one counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from pipeline.core.errors import unknown_name


@dataclass(frozen=True)
class TapPoint:
    """Where a tap sits.

    Attributes:
        module: path of the module in the model.
        side: whether the module's input or its output is read.
        overwritten: whether the model itself, by a function and not by a module, overwrites the value later on; it is
            then copied.
        channels_last: whether the value is (B, H, W, C); it is handed on as a (B, C, H, W) view.
    """

    module: str
    side: Literal["input", "output"] = "output"
    overwritten: bool = False
    channels_last: bool = False


class Recorder:
    """The hooks of one model and what they saw in the present forward pass.

    A deep copy of the model with its recorder has hooks that write into the copied recorder.
    """

    def __init__(self) -> None:
        self._values: dict[str, Tensor] = {}

    def attach(self, model: nn.Module, points: dict[str, TapPoint]) -> None:
        """Put a hook on each point's module."""
        for name, point in points.items():
            module = model.get_submodule(point.module)
            hook = _Hook(name, point, self._values)
            if point.side == "output":
                module.register_forward_hook(hook.on_output)
            else:
                _keep_input(module)
                module.register_forward_pre_hook(hook.on_input)

    def take(self) -> dict[str, Tensor]:
        """Hand over what was recorded since the last call, and keep no reference to it."""
        values = dict(self._values)
        self._values.clear()
        return values


class _Hook:
    def __init__(self, name: str, point: TapPoint, values: dict[str, Tensor]) -> None:
        self._name, self._point, self._values = name, point, values

    def on_input(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._keep(inputs[0])

    def on_output(self, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        self._keep(output)

    def _keep(self, value: Tensor) -> None:
        if self._point.overwritten:
            value = value.clone()
        if self._point.channels_last:
            value = value.permute(0, 3, 1, 2)
        self._values[self._name] = value


def choose(offered: dict[str, TapPoint], wanted: Iterable[str], model: str) -> dict[str, TapPoint]:
    """The points of the wanted taps.

    Raises:
        ConfigError: a tap that this family does not offer, with those that it does.
    """
    names = list(wanted)
    for name in names:
        if name not in offered:
            raise unknown_name(f"feature tap of {model}", name, offered)
    return {name: offered[name] for name in names}


def _keep_input(module: nn.Module) -> None:
    if hasattr(module, "inplace"):
        vars(module).update(inplace=False)
