"""Does every family keep a network's promises: the plain model's numbers, its keys, and taps that tell the truth?

Each family stands here as its smallest instance; that the real ones are built alike is checked without memory, on the
meta device.
"""

import copy
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import convnext, densenet, efficientnet, mobilenetv3, regnet, resnet, vgg

from pipeline.models.families.demo import demo_student, demo_teacher
from pipeline.models.families.mobilenet_v1 import mobilenet_v1
from pipeline.models.network import Network
from pipeline.models.outputs import Outputs
from pipeline.models.sources import torchvision
from pipeline.models.stages import tap_points

CLASSES, SIDE = 7, 64
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def _vgg() -> nn.Module:
    model = models.VGG(vgg.make_layers([8, "M", 8, "M", 8, 8, "M", 8, "M", 8, "M"]), num_classes=CLASSES)
    model.classifier = nn.Sequential(nn.Linear(8 * 49, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, CLASSES))
    return model


def _mobilenet_v3() -> nn.Module:
    rows = ((16, 3, 16, 16, True, 2), (16, 3, 32, 24, False, 2), (24, 5, 48, 32, True, 2), (32, 5, 64, 40, True, 2))
    blocks = [mobilenetv3.InvertedResidualConfig(*row[:5], "HS", row[5], 1, 1.0) for row in rows]
    return models.MobileNetV3(blocks, 64, num_classes=CLASSES)


def _efficientnet() -> nn.Module:
    rows = ((1, 1, 16, 16), (4, 2, 16, 24), (4, 2, 24, 32), (4, 2, 32, 40), (4, 1, 40, 48), (4, 2, 48, 56))
    blocks = [efficientnet.MBConvConfig(ratio, 3, stride, i, o, 1) for ratio, stride, i, o in rows]
    return models.EfficientNet(blocks, dropout=0.2, num_classes=CLASSES)


def _convnext() -> nn.Module:
    blocks = [convnext.CNBlockConfig(8 << k, 16 << k if k < 3 else None, 1) for k in range(4)]
    return models.ConvNeXt(blocks, num_classes=CLASSES)


def _swin(**options: object) -> nn.Module:
    shape = {"patch_size": [4, 4], "embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 4, 8]}
    return models.SwinTransformer(**shape, window_size=[4, 4], num_classes=CLASSES, **options)


def _swin_v2() -> nn.Module:
    parts = models.swin_transformer
    return _swin(block=parts.SwinTransformerBlockV2, downsample_layer=parts.PatchMergingV2)


RECTIFIED: dict[str, Callable[[], nn.Module]] = {
    "resnet_basic": lambda: models.ResNet(resnet.BasicBlock, [1, 2, 1, 1], num_classes=CLASSES),
    "resnext": lambda: models.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=CLASSES, groups=8, width_per_group=4),
    "regnet": lambda: models.RegNet(
        regnet.BlockParams([1, 2, 1, 1], [8, 16, 24, 32], [8] * 4, [1.0] * 4, [2] * 4), num_classes=CLASSES
    ),
    "densenet": lambda: densenet.DenseNet(8, (2, 2, 2, 2), 16, num_classes=CLASSES),
    "vgg": _vgg,
    "alexnet": lambda: models.AlexNet(num_classes=CLASSES),
    "mobilenet_v1": lambda: mobilenet_v1(num_classes=CLASSES),
    "demo_teacher": lambda: demo_teacher(num_classes=CLASSES),
    "demo_student": lambda: demo_student(num_classes=CLASSES),
}
UNRECTIFIED: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": lambda: models.MobileNetV2(num_classes=CLASSES, width_mult=0.25),
    "mobilenet_v3": _mobilenet_v3,
    "efficientnet": _efficientnet,
    "mnasnet": lambda: models.MNASNet(0.25, num_classes=CLASSES),
    "shufflenet": lambda: models.ShuffleNetV2([2, 2, 2], [8, 16, 24, 32, 64], num_classes=CLASSES),
    "convnext": _convnext,
    "swin": _swin,
    "swin_v2": _swin_v2,
    "maxvit": lambda: models.MaxVit(
        (SIDE, SIDE), 8, 2, [8, 16, 24, 32], [1, 1, 1, 1], head_dim=8, stochastic_depth_prob=0.1, num_classes=CLASSES
    ),
    "vit": lambda: models.VisionTransformer(SIDE, 16, 2, 2, 16, 32, num_classes=CLASSES),
}
FAMILIES = {**RECTIFIED, **UNRECTIFIED}
WITHOUT_PYRAMID = {"vgg", "alexnet", "vit"}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def plain(family: str) -> nn.Module:
    torch.manual_seed(3)
    return FAMILIES[family]()


@pytest.fixture(scope="module")
def network(plain: nn.Module) -> Network:
    """A network with every tap of its family."""
    return Network(copy.deepcopy(plain), taps=Network(copy.deepcopy(plain)).tap_names())


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[True, False], ids=["train", "eval"])
def outputs(network: Network, images: Tensor, request: pytest.FixtureRequest) -> Outputs:
    return network.train(request.param)(images)


def test_logits_and_keys_are_the_plain_models(plain: nn.Module, network: Network, images: Tensor) -> None:
    plain.load_state_dict(network.model.state_dict())
    with torch.no_grad():
        assert torch.equal(network.eval()(images).logits, plain.eval()(images))


def test_every_offered_tap_is_handed_out(network: Network, outputs: Outputs) -> None:
    assert (*outputs.features, "embedding") == network.tap_names()
    assert all(torch.isfinite(value).all() for value in outputs.features.values())


def test_the_logits_are_the_head_of_the_embedding(network: Network, outputs: Outputs) -> None:
    assert outputs.embedding is not None
    assert outputs.embedding.shape == (3, network.embedding_dim)
    assert network.head.weight.shape == (CLASSES, network.embedding_dim)
    rebuilt = nn.functional.linear(outputs.embedding, network.head.weight, network.head.bias)
    torch.testing.assert_close(rebuilt, outputs.logits)


def test_pre_is_the_value_whose_relu_is_the_stage(family: str, outputs: Outputs) -> None:
    stages = [name for name in outputs.features if not name.endswith(".pre")]
    pairs = [(outputs.features[f"{s}.pre"], outputs.features[s]) for s in stages if f"{s}.pre" in outputs.features]
    assert len(pairs) == (len(stages) if family in RECTIFIED else 0)
    for before, after in pairs:
        assert before.min() < 0
        assert torch.equal(before.relu(), after)


def test_no_layer_overwrites_a_tapped_value(family: str, network: Network, images: Tensor) -> None:
    points, seen = tap_points(network.model), {}
    handles = [
        network.model.get_submodule(point.module).register_forward_hook(
            lambda _, __, output, name=name: seen.update({name: output.clone()})
        )
        for name, point in points.items()
        if point.side == "output"
    ]
    features = network.eval()(images).features
    for handle in handles:
        handle.remove()
    for name, value in seen.items():
        expected = value.permute(0, 3, 1, 2) if points[name].channels_last else value
        rectified_by_a_function = family == "densenet" and name == "stage4"
        assert torch.equal(features[name], expected.relu() if rectified_by_a_function else expected)


def test_stages_have_strides_4_8_16_32(family: str, outputs: Outputs) -> None:
    stages = [name for name in outputs.features if not name.endswith(".pre")]
    if family not in WITHOUT_PYRAMID:
        assert stages == STAGES
        for name, value in outputs.features.items():
            assert value.shape[2:] == (SIDE >> (int(re.findall(r"\d", name)[0]) + 1),) * 2
    else:
        assert stages == {"vgg": [*STAGES, "stage5"], "alexnet": STAGES[:3], "vit": []}[family]


def test_gradients_flow_through_every_tap(network: Network, outputs: Outputs) -> None:
    taps = [*outputs.features.values(), outputs.embedding]
    assert all(value is not None and value.requires_grad for value in taps)
    loss = sum(value.square().mean() for value in taps)
    (gradient,) = torch.autograd.grad(loss, next(network.parameters()))
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


# RegNets compute their widths with tensors, which the meta device cannot
@pytest.mark.parametrize("name", sorted(n for n in torchvision.SOURCE.names() if not n.startswith("regnet")))
def test_every_torchvision_model_is_understood(name: str) -> None:
    with torch.device("meta"):
        model = models.get_model(name, weights=None, num_classes=CLASSES)
        keys = list(model.state_dict())
        network = Network(model, taps=Network(model).tap_names())
    assert list(model.state_dict()) == keys
    assert network.num_classes == CLASSES
    stages = {"vit": [], "vgg": [*STAGES, "stage5"], "ale": STAGES[:3]}.get(name[:3], STAGES)
    assert [tap for tap in network.tap_names() if tap.startswith("stage") and not tap.endswith(".pre")] == stages
