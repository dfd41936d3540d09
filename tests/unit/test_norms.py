"""Is the BatchNorm before a tap the one that OFD's authors take, and does a network live without its head?"""

import pytest
import torch
from torch import nn
from torchvision import models

from pipeline.core.errors import ConfigError
from pipeline.models.families.demo import demo_teacher
from pipeline.models.families.mobilenet_v1 import mobilenet_v1
from pipeline.models.network import Network
from pipeline.models.norms import norm_before

# resnet and mobilenet: `get_bn_before_relu` of clovaai/overhaul-distillation
ENDS = {
    "resnet18": ("layer1.1.bn2", "layer4.1.bn2"),
    "resnet50": ("layer1.2.bn3", "layer4.2.bn3"),
    "regnet_y_400mf": ("trunk_output.block1.block1-0.f.c.1", "trunk_output.block4.block4-5.f.c.1"),
    "densenet121": ("features.transition1.norm", "features.norm5"),
    "vgg11_bn": ("features.1", "features.19"),
    "mobilenet_v1": ("model.3.4", "model.13.4"),
    "demo_teacher": ("stages.0.residual.4", "stages.3.residual.4"),
}
OWN = {"mobilenet_v1": mobilenet_v1, "demo_teacher": demo_teacher}


def build(name: str) -> Network:
    make = OWN.get(name)
    return Network(models.get_model(name, num_classes=5) if make is None else make(num_classes=5))


@pytest.mark.parametrize("name", ENDS)
def test_the_norm_that_ends_the_main_path(name: str) -> None:
    network = build(name)
    found = [norm_before(network, f"{stage}.pre") for stage in ("stage1", "stage4")]
    assert [path for path, module in network.model.named_modules() if any(module is norm for norm in found)] == list(
        ENDS[name]
    )


@pytest.mark.parametrize(("name", "tap"), [("vgg11", "stage1.pre"), ("convnext_tiny", "stage1.pre"), ("resnet18", "x")])
def test_a_tap_without_a_norm_is_refused(name: str, tap: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)none before '{tap}'.*Choose a teacher with BatchNorm"):
        norm_before(build(name), tap)


def test_a_network_without_its_classifier_gives_embeddings_as_logits() -> None:
    network = Network(demo_teacher(num_classes=5), taps=("stage4",)).eval()
    images = torch.randn(2, 3, 64, 64)
    before = network(images)
    network.drop_classifier()
    after = network(images)
    assert torch.equal(after.embedding, before.embedding)
    assert torch.equal(after.logits, before.embedding)
    assert not any(key.startswith("fc") for key in network.model.state_dict())
    assert isinstance(network.model.fc, nn.Identity)
    with pytest.raises(TypeError, match="replaced by Identity"):
        _ = network.head


def test_it_may_lose_its_classifier_before_the_first_call() -> None:
    network = Network(demo_teacher(num_classes=5))
    network.drop_classifier()
    assert network(torch.randn(2, 3, 64, 64)).logits.shape == (2, 128)
