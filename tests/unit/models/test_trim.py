"""What a tap does not depend on is cut where the network runs without it, and frozen where it does not."""

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from pipeline.models.network import Network
from pipeline.models.taps import TapPoint
from pipeline.models.trim import cut_tail

SIDE, CLASSES = 64, 5


class Branching(nn.Module):
    """After the tap: a sum of two layers, neither of which it can do without; and one layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.wide, self.narrow = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1)
        self.unused, self.shared = nn.Linear(7, 7), nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.ones(1))
        self.fc = nn.Linear(6, CLASSES)

    def tap_points(self) -> dict[str, TapPoint]:
        return {"stage4": TapPoint("last")}

    def forward(self, images: Tensor) -> Tensor:
        last = self.last(self.shared(self.stem(images)))
        end = self.wide(last) + self.narrow(self.shared(last)) * self.scale
        return self.fc(end.mean(dim=(2, 3)))


def left(network: Network) -> set[str]:
    return {name for name, parameter in network.model.named_parameters() if parameter.requires_grad}


def check_gradients(network: Network) -> None:
    network(torch.randn(2, 3, SIDE, SIDE)).features["stage4"].square().sum().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_what_cannot_be_left_out_is_frozen() -> None:
    torch.manual_seed(1)
    network = Network(Branching(), taps=("stage4",))
    network.drop_classifier()
    assert cut_tail(network, "stage4", SIDE) == ("unused",)
    assert left(network) == {f"{layer}.{part}" for layer in ("stem", "last", "shared") for part in ("weight", "bias")}
    check_gradients(network)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (models.resnet18, ()),
        (models.shufflenet_v2_x0_5, ("conv5",)),
        (models.mobilenet_v2, ("features.18",)),
        (models.mobilenet_v3_small, ("classifier.0", "features.12")),
        (models.densenet121, ()),
    ],
)
def test_the_tail_of_a_family_is_cut_and_nothing_else_changes(build: type, expected: tuple[str, ...]) -> None:
    torch.manual_seed(2)
    network = Network(build(num_classes=CLASSES), taps=("stage4",)).train()
    network.drop_classifier()
    images = torch.randn(2, 3, SIDE, SIDE)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        features = network.eval()(images).features["stage4"]
    network.train()
    state = torch.get_rng_state()
    with torch.no_grad():
        assert cut_tail(network, "stage4", SIDE) == expected
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert all(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    prefixes = tuple(f"model.{path}." for path in expected)
    after = network.state_dict()
    assert list(after) == [name for name in before if not name.startswith(prefixes)]
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    with torch.no_grad():
        assert torch.equal(network.eval()(images).features["stage4"], features)
    check_gradients(network.train())
