"""The BatchNorm whose output a ".pre" tap is: its scale and shift say how the values before the ReLU are spread."""

from collections.abc import Iterator

from torch import nn

from pipeline.core.errors import ConfigError
from pipeline.models.network import Network
from pipeline.models.stages import tap_points

_SHORTCUTS = ("downsample", "shortcut", "proj")


def norm_before(network: Network, tap: str) -> nn.BatchNorm2d:
    """The last BatchNorm on the main path before the ReLU that `tap` taps.

    In a residual block that is the one which ends the residual branch, as in the authors' code of OFD.

    Raises:
        ConfigError: no BatchNorm there (VGG without BN, ConvNeXt, ViT, ...), or one without scale and shift.
    """
    point = tap_points(network.model).get(tap)
    layer = None if point is None else _norm_before(network.model, point.module)
    if layer is None or layer.weight is None:
        name = type(network.model).__name__
        raise ConfigError(
            f"the margins of OFD come from the BatchNorm before each ReLU, and {name} has none before '{tap}'.\n"
            "Choose a teacher with BatchNorm before its stages' last ReLUs (ResNet, RegNet, VGG with BN, MobileNetV1)."
        )
    return layer


def _norm_before(model: nn.Module, path: str) -> nn.BatchNorm2d | None:
    layer = model.get_submodule(path)
    if isinstance(layer, nn.BatchNorm2d):  # a map that a function rectifies
        return layer
    parent, name = model.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2]
    if isinstance(parent, nn.Sequential):
        children = dict(parent.named_children())
        before = list(children.values())[: list(children).index(name)][-1:]
        return next((child for child in before if isinstance(child, nn.BatchNorm2d)), None)
    return next(reversed(list(_main_path_norms(parent))), None)


def _main_path_norms(block: nn.Module) -> Iterator[nn.BatchNorm2d]:
    for name, child in block.named_children():
        if name in _SHORTCUTS:
            continue
        if isinstance(child, nn.BatchNorm2d):
            yield child
        else:
            yield from _main_path_norms(child)
