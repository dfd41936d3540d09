"""Do taps see what they should, whatever happens to the memory behind them?"""

import copy
import gc
import weakref
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.core.errors import ConfigError
from pipeline.models.families.demo import demo_student
from pipeline.models.network import Network
from pipeline.models.spec import resolve_model
from pipeline.models.taps import TapPoint
from pipeline.models.zoo import build_network

TAPS = ("stage1", "stage1.pre", "stage4.pre")


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def network(*taps: str, name: str = "demo_student@random") -> Network:
    return build_network(resolve_model(name, role="teacher"), num_classes=5, seed=1, taps=taps)


def test_a_plain_hook_sees_an_overwritten_value_and_the_tap_does_not(images: Tensor) -> None:
    plain, seen = network(name="resnet18@random"), {}
    plain.model.layer1[1].relu.register_forward_pre_hook(lambda _, args: seen.update(value=args[0]))
    plain.eval()(images)
    tapped = network("stage1.pre", name="resnet18@random").eval()(images).features["stage1.pre"]
    assert seen["value"].min() == 0
    assert tapped.min() < 0


def test_no_copy_and_no_switched_layer_when_not_asked(images: Tensor) -> None:
    asked, plain = network("stage1.pre", name="resnet18@random"), network("stage1", name="resnet18@random")
    assert [m.inplace for m in plain.modules() if isinstance(m, nn.ReLU)].count(False) == 0
    assert [m.inplace for m in asked.modules() if isinstance(m, nn.ReLU)].count(False) == 1
    assert set(plain(images).features) == {"stage1"}
    assert network()(images).features == {}


def test_unknown_tap_lists_the_familys(images: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"(?s)stage5.*Did you mean 'stage\d.*Known: embedding, stage1, stage1.pre"):
        network("stage5")
    with pytest.raises(ConfigError, match=r"MobileNetV2 'stage1.pre'"):
        network("stage1.pre", name="mobilenet_v2@random")


def test_a_deep_copy_has_taps_of_its_own(images: Tensor) -> None:
    original = network(*TAPS).eval()
    first = original(images)
    twin = copy.deepcopy(original)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.5)
    halved, again = twin(images), original(images)
    assert not torch.equal(halved.features["stage1"], first.features["stage1"])
    assert torch.equal(again.features["stage1"], first.features["stage1"])


def test_nothing_is_kept_between_calls(images: Tensor) -> None:
    tapped = network(*TAPS)
    held = weakref.ref(tapped(images).features["stage1"])
    gc.collect()
    assert held() is None


def test_a_failed_call_leaves_nothing_for_the_next(images: Tensor) -> None:
    tapped = network("stage1").eval()
    tapped(images)
    with pytest.raises(RuntimeError):
        tapped(images[:, :2])
    assert set(tapped(images).features) == {"stage1"}


def test_the_users_own_model_may_offer_taps(images: Tensor) -> None:
    class Own(nn.Sequential):
        def tap_points(self) -> dict[str, TapPoint]:
            return {"body": TapPoint("0"), "body.pre": TapPoint("1", side="input")}

    own = Own(nn.Conv2d(3, 4, 3, 4), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    outputs = Network(own, taps=("body.pre",))(images)
    assert Network(own).tap_names() == ("body", "body.pre", "embedding")
    assert outputs.features["body.pre"].min() < 0


def test_a_tap_on_a_layer_that_never_runs_is_refused(images: Tensor) -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.body, self.fc = nn.ReLU(), nn.Conv2d(3, 4, 64), nn.Linear(4, 5)

        def forward(self, images: Tensor) -> Tensor:
            return self.fc(self.body(images).flatten(1))

        def tap_points(self) -> dict[str, TapPoint]:
            return {"unused": TapPoint("unused")}

    with pytest.raises(ConfigError, match="did not run the layers of unused"):
        Network(Lazy(), taps=("unused",))(images)


def test_taps_work_inside_ddp(images: Tensor, tmp_path: Path) -> None:
    class Student(nn.Module):
        def __init__(self, body: Network) -> None:
            super().__init__()
            self.body = body

        def forward(self, images: Tensor) -> Tensor:
            outputs = self.body(images)
            return outputs.logits.square().mean() + sum(value.square().mean() for value in outputs.features.values())

    alone, wrapped = network(*TAPS), network(*TAPS)
    Student(alone)(images).backward()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        nn.parallel.DistributedDataParallel(Student(wrapped))(images).backward()
    finally:
        dist.destroy_process_group()
    for mine, theirs in zip(alone.parameters(), wrapped.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad)


class OverwritingModel(nn.Module):
    """Rectifies its features in place by a function, which no flag of a module can stop."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 4, 3, 4), nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        return self.fc(nn.functional.relu(features, inplace=True).mean((2, 3)))

    def tap_points(self) -> dict[str, TapPoint]:
        return {"post": TapPoint("body"), "pre": TapPoint("body", overwritten=True)}


def test_a_value_that_a_function_overwrites_is_copied(images: Tensor) -> None:
    features = Network(OverwritingModel(), taps=("post", "pre"))(images).features
    assert features["pre"].min() < 0
    assert torch.equal(features["pre"].relu(), features["post"])


@pytest.mark.parametrize(
    ("model", "taps"),
    [(demo_student(num_classes=5), ("stage1", "stage4", "stage4.pre")), (OverwritingModel(), ("post", "pre"))],
    ids=["demo", "overwriting"],
)
def test_taps_are_the_same_in_one_compiled_graph(model: nn.Module, taps: tuple[str, ...], images: Tensor) -> None:
    eager, compiled = Network(copy.deepcopy(model), taps=taps).eval(), Network(copy.deepcopy(model), taps=taps).eval()
    torch.compiler.reset()
    run = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        expected, found = eager(images), run(images)
        torch.testing.assert_close(found.logits, expected.logits)
        torch.testing.assert_close(found.embedding, expected.embedding)
        assert list(found.features) == list(taps)
        for tap in taps:
            torch.testing.assert_close(found.features[tap], expected.features[tap])
