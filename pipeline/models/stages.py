"""Where each family's stages end.

"stageK" is the map at the end of a stage, after its last activation; "stageK.pre" is the value whose ReLU it is.
Families with linear bottlenecks (MobileNetV2, EfficientNet, ...) or without ReLU (ConvNeXt, Swin) have no ".pre".
Stages count from the first map at stride 4, so that stage1..4 have strides 4, 8, 16, 32; VGG and AlexNet are the
exception: their stages end before each pooling, VGG's at strides 1, 2, 4, 8, 16.

A network of the user's own may offer taps too, by a method `tap_points() -> dict[str, TapPoint]`.
"""

from collections.abc import Callable, Iterable

from torch import nn
from torchvision import models
from torchvision.ops import Conv2dNormActivation

from pipeline.models.taps import TapPoint

Points = dict[str, TapPoint]

_FIRST_STRIDE = 4
_AFTER_DOWNSAMPLING = ("features.1", "features.3", "features.5", "features.7")


def tap_points(model: nn.Module) -> Points:
    """The stage taps that `model` offers; none for a family without stages, such as ViT."""
    own = getattr(model, "tap_points", None)
    if callable(own):
        return dict(own())
    for family, find in _FAMILIES:
        if isinstance(model, family):
            return find(model)
    return _listed_features(model)


def rectified(activations: Iterable[str]) -> Points:
    """Both taps of each stage, given the path of the activation that ends it."""
    points: Points = {}
    for number, path in enumerate(activations, start=1):
        points[f"stage{number}"] = TapPoint(path)
        points[f"stage{number}.pre"] = TapPoint(path, side="input")
    return points


def _plain(paths: Iterable[str], *, channels_last: bool = False) -> Points:
    return {f"stage{n}": TapPoint(path, channels_last=channels_last) for n, path in enumerate(paths, start=1)}


def _last_child(module: nn.Module) -> str:
    return [name for name, _ in module.named_children()][-1]


def _resnet(model: nn.Module) -> Points:
    layers = [f"layer{number}" for number in range(1, 5)]
    return rectified(f"{layer}.{_last_child(model.get_submodule(layer))}.relu" for layer in layers) | _plain(layers)


def _regnet(model: nn.Module) -> Points:
    blocks = [f"trunk_output.{name}" for name, _ in model.get_submodule("trunk_output").named_children()]
    return rectified(f"{block}.{_last_child(model.get_submodule(block))}.activation" for block in blocks)


def _densenet(model: nn.Module) -> Points:
    points = rectified(f"features.transition{number}.relu" for number in (1, 2, 3))
    # the last ReLU is a function that overwrites norm5's output: uncopied, that output is the rectified map
    points["stage4"] = TapPoint("features.norm5")
    points["stage4.pre"] = TapPoint("features.norm5", overwritten=True)
    return points


def _before_pooling(model: nn.Module) -> Points:
    layers = list(model.get_submodule("features").named_children())
    pools = [place for place, (_, layer) in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    return rectified(f"features.{layers[place - 1][0]}" for place in pools)


def _inverted_residuals(parent: str) -> Callable[[nn.Module], Points]:
    """Taps at the last block of each resolution of the sequence `parent`; stem and last convolution are no blocks."""

    def find(model: nn.Module) -> Points:
        ends: dict[int, str] = {}
        stride = 1
        for name, child in model.get_submodule(parent).named_children():
            stride *= max((m.stride[0] for m in child.modules() if isinstance(m, nn.Conv2d)), default=1)
            is_block = any(True for _ in child.children()) and not isinstance(child, Conv2dNormActivation)
            if is_block and stride >= _FIRST_STRIDE:
                ends[stride] = f"{parent}.{name}"
        return _plain(ends.values())

    return find


def _listed_features(model: nn.Module) -> Points:
    """Stages as a timm model lists them, where they form a pyramid of maps."""
    listed = getattr(model, "feature_info", None)
    if not isinstance(listed, list):
        return {}
    stages = {entry["reduction"]: entry["module"] for entry in listed if entry["reduction"] >= _FIRST_STRIDE}
    is_pyramid = len({entry["reduction"] for entry in listed}) == len(listed)
    channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    return _plain(stages.values(), channels_last=channels_last) if is_pyramid else {}


_FAMILIES: tuple[tuple[type[nn.Module], Callable[[nn.Module], Points]], ...] = (
    (models.ResNet, _resnet),
    (models.RegNet, _regnet),
    (models.DenseNet, _densenet),
    (models.VGG, _before_pooling),
    (models.AlexNet, _before_pooling),
    (models.MobileNetV2, _inverted_residuals("features")),
    (models.MobileNetV3, _inverted_residuals("features")),
    (models.EfficientNet, _inverted_residuals("features")),
    (models.MNASNet, _inverted_residuals("layers")),
    (models.ShuffleNetV2, lambda _: _plain(("maxpool", "stage2", "stage3", "stage4"))),
    (models.ConvNeXt, lambda _: _plain(_AFTER_DOWNSAMPLING)),
    (models.SwinTransformer, lambda _: _plain(_AFTER_DOWNSAMPLING, channels_last=True)),
    (models.MaxVit, lambda _: _plain(f"blocks.{number}" for number in range(4))),
)
