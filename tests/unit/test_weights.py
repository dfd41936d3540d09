"""Are the weights those of the file, and are wrong ones refused with both sides shown?"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from pipeline.core.errors import ConfigError
from pipeline.models.network import Network
from pipeline.models.spec import resolve_model
from pipeline.models.weights import load_state
from pipeline.models.zoo import build_network

NAME = "demo_student"


def build(text: str, *, classes: int = 5, role: str = "teacher") -> Network:
    return build_network(resolve_model(text, role=role), num_classes=classes, seed=1)


@pytest.fixture
def trained() -> Network:
    """Weights that no seed of the tests gives."""
    network = build_network(resolve_model(NAME, role="student"), num_classes=5, seed=99)
    network(torch.randn(4, 3, 64, 64))
    return network


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": prefixed(state, "module."), "epoch": 3, "arch": "x"},
        lambda state: {"model": state, "name": NAME, "classes": ["a", "b"]},
        lambda state: {"student": prefixed(state, "_orig_mod.")},
        lambda state: prefixed(state, "model."),
        lambda state: {"module": {**prefixed(state, "student.model."), "method.scale": torch.ones(1)}, "step": 7},
    ],
    ids=["bare", "ddp", "export", "compiled", "network", "checkpoint"],
)
def test_a_file_is_read_in_every_usual_wrapping(wrap: Callable[..., Any], trained: Network, tmp_path: Path) -> None:
    torch.save(wrap(trained.model.state_dict()), tmp_path / "w.pt")
    loaded = build(f"{NAME}@{tmp_path}/w.pt").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in trained.state_dict().items())


def test_torchvision_and_network_exchange_weights(tmp_path: Path) -> None:
    plain = models.resnet18(num_classes=5).eval()
    torch.save(plain.state_dict(), tmp_path / "r18.pth")
    network, images = build(f"resnet18@{tmp_path}/r18.pth").eval(), torch.randn(2, 3, 64, 64)
    assert torch.equal(network(images).logits, plain(images))
    plain.load_state_dict(network.model.state_dict())


def test_missing_and_left_over_layers_are_listed(trained: Network, tmp_path: Path) -> None:
    state = dict(trained.model.state_dict())
    state["extra.weight"] = state.pop("stem.0.weight")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"(?s)not in the weights: stem.0.weight.*not in the network: extra.weight"):
        build(f"{NAME}@{tmp_path}/w.pt")


def test_shapes_that_differ_show_both_sides(trained: Network, tmp_path: Path) -> None:
    torch.save({**trained.model.state_dict(), "stem.0.weight": torch.ones(8, 3, 5, 5)}, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"stem.0.weight: weights \(8, 3, 5, 5\), network \(8, 3, 3, 3\)"):
        build(f"{NAME}@{tmp_path}/w.pt")


def test_weights_of_another_model_are_refused(trained: Network, tmp_path: Path) -> None:
    torch.save(trained.model.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"(?s)teacher resnet18@.* do not fit.*and \d+ more"):
        build(f"resnet18@{tmp_path}/w.pt")


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_another_number_of_classes_is_refused(trained: Network, tmp_path: Path, role: str) -> None:
    torch.save(trained.model.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="the weights have 5 classes, the data set has 6"):
        build(f"{NAME}@{tmp_path}/w.pt", classes=6, role=role)
    with pytest.raises(ConfigError, match="the weights have 1000 classes, the data set has 10"):
        build("resnet18@IMAGENET1K_V1", classes=10, role=role)


class NotATensor:
    """A class that a weights file may not bring along."""


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: torch.save({"model": NotATensor()}, path), "tensors only"),
        (lambda path: torch.save({"epoch": 3}, path), "no state_dict in"),
        (lambda path: torch.save({"model": {"epoch": 3}}, path), "no state_dict in"),
        (lambda path: path.write_text("not weights"), "w.pt"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.mkdir(), "not found"),
        (lambda path: None, "not found"),
    ],
    ids=["objects", "no state", "no tensors", "text", "empty", "folder", "missing"],
)
def test_a_file_without_weights_is_refused(write: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    write(tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=message):
        build(f"{NAME}@{tmp_path}/w.pt")


def test_a_failed_download_names_the_url_and_the_way_round(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: refused at once
    with pytest.raises(ConfigError, match=r"(?s)https://download.*resnet18@/path/to/resnet18-f37072fd.pth"):
        build("resnet18@IMAGENET1K_V1", classes=1000)


def test_densenet_files_of_old_releases_fit() -> None:
    model = models.DenseNet(8, (2, 2, 2, 2), 16, num_classes=5)
    old = {
        key.replace("norm1", "norm.1").replace("conv2", "conv.2") if "denselayer" in key else key: value * 2
        for key, value in model.state_dict().items()
    }
    expected = {key: value * 2 for key, value in model.state_dict().items()}
    load_state(model, old, name="densenet", head="classifier")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in expected.items())


def test_a_bare_dict_loads_into_a_model_that_asks_for_its_version() -> None:
    model = models.MNASNet(0.25, num_classes=5)
    load_state(model, dict(model.state_dict()), name="mnasnet", head="classifier.1")


def test_the_state_may_be_a_plain_modules_own() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    load_state(model, {key: value + 1 for key, value in model.state_dict().items()}, name="own", head="2")
