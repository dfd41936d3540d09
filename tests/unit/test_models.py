"""Does a name give the right network, from the right seed, or a message that helps?"""

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.core.errors import ConfigError, MissingPackageError
from pipeline.models import families, sources
from pipeline.models.head import Float32Linear
from pipeline.models.network import Network
from pipeline.models.sources import file, reflux, timm, torchvision
from pipeline.models.spec import ModelSpec, Role, model_names, parse_spec, resolve_model
from pipeline.models.zoo import build_network

USER_FILE = """
import torch
from torch import nn

def good(*, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(inplace=True), nn.Linear(6, num_classes))

def fixed(num_classes):
    return good(num_classes=7)

def convolutional(num_classes):
    return nn.Sequential(nn.Conv2d(3, num_classes, 2), nn.Flatten())

def softmax(num_classes):
    return nn.Sequential(good(num_classes=num_classes), nn.Softmax(dim=1))

def text(num_classes):
    return "no network"

def without_argument():
    return good(num_classes=5)

def broken(num_classes):
    return 1 / 0
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "own@home" / "nets.py"
    path.parent.mkdir()
    path.write_text(USER_FILE)
    return path


def build(text: str, *, classes: int = 5, seed: int = 1, role: Role = "student") -> Network:
    return build_network(resolve_model(text, role=role), num_classes=classes, seed=seed)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("resnet18", ModelSpec(torchvision.SOURCE, "resnet18", None)),
        ("resnet34@IMAGENET1K_V1", ModelSpec(torchvision.SOURCE, "resnet34", "IMAGENET1K_V1")),
        ("resnet34@/a@b/r34.pth", ModelSpec(torchvision.SOURCE, "resnet34", "/a@b/r34.pth")),
        ("mobilenet_v1@random", ModelSpec(reflux.SOURCE, "mobilenet_v1", "random")),
        ("timm:resnet50@a1_in1k", ModelSpec(timm.SOURCE, "resnet50", "a1_in1k")),
        ("a@b/nets.py:make@w.pt", ModelSpec(file.SOURCE, "a@b/nets.py:make", "w.pt")),
    ],
)
def test_a_spec_is_read_and_written_back(text: str, spec: ModelSpec) -> None:
    assert parse_spec(text) == spec
    assert str(spec) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "name is empty"),
        ("@random", "name is empty"),
        ("resnet18@", "weights after '@' is empty"),
        (" resnet18", "spaces"),
        ("timm:", "no model has such a name"),
        ("hub:resnet18", "'hub:' is no source"),
        ("nets.py", "needs the function"),
        ("nets.py:", "'' is no function"),
        ("nets.py:a-b", "'a-b' is no function"),
        ("/path/r18.pth", "no model has such a name"),
    ],
)
def test_nonsense_is_refused_with_the_forms_that_are_not(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){reason}.*NAME@WEIGHTS"):
        parse_spec(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet19@random", "Did you mean 'resnet1"),
        ("squeezenet1_0@random", "not a linear layer"),
        ("googlenet@random", "auxiliary"),
        ("mobilenet_v1@IMAGENET1K_V1", "no published weights"),
        ("resnet18@IMAGENET1K_V9", "Did you mean 'IMAGENET1K_V1'"),
    ],
)
def test_unknown_names_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(text)


def test_a_name_is_refused_when_it_is_checked_since_a_stored_teacher_is_not() -> None:
    stored = parse_spec("resnet19@IMAGENET1K_V1", role="teacher")
    assert str(stored) == "resnet19@IMAGENET1K_V1"
    with pytest.raises(ConfigError, match="unknown model 'resnet19'"):
        stored.check()


def test_a_teacher_names_its_weights_and_a_student_need_not() -> None:
    with pytest.raises(ConfigError, match="Write --teacher resnet34@IMAGENET1K_V1"):
        build("resnet34", role="teacher")
    assert build("demo_student").num_classes == 5


def test_weights_are_a_function_of_the_seed_and_the_global_state_stays() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = build("demo_student", seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(random.randrange(1, 9))
    build("demo_teacher@random", seed=4, role="teacher")
    second, other = build("demo_student@random", seed=4, role="teacher"), build("demo_student", seed=5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize(
    ("name", "classes", "low", "high"),
    [
        ("mobilenet_v1", 1000, 4_231_976, 4_231_976),
        ("demo_teacher", 10, 300_000, 700_000),
        ("demo_student", 10, 10_000, 30_000),
    ],
)
def test_own_networks_have_their_size(name: str, classes: int, low: int, high: int) -> None:
    assert low <= sum(parameter.numel() for parameter in build(name, classes=classes).parameters()) <= high


def test_mobilenet_v1_has_the_references_keys() -> None:
    keys = build("mobilenet_v1").model.state_dict().keys()
    assert {"model.0.0.weight", "model.1.3.weight", "model.13.4.running_var", "fc.bias"} <= keys
    assert {key.split(".")[0] for key in keys} == {"model", "fc"}


def test_known_names_hold_what_can_be_built() -> None:
    assert {"resnet34", "mobilenet_v1", "demo_teacher", "vit_b_16"} <= set(model_names())
    assert not {"squeezenet1_0", "inception_v3"} & set(model_names())


OWN_FAMILY = """
from torch import nn


def own_net(*, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, num_classes))


NETWORKS = (own_net,)
"""
OWN_SOURCE = """
import torch

from pipeline.core.errors import unknown_name
from pipeline.models.families.own import own_net
from pipeline.models.source import ModelSource


class Hub(ModelSource):
    prefix = "hub:"
    form = "hub:NAME@WEIGHTS"
    example_weights = "ones"

    def check(self, name, published):
        if published not in (None, "ones"):
            raise unknown_name(f"weights of {name}", published, ["ones"])

    def build(self, name, *, num_classes):
        if name != "small":
            raise unknown_name("model of the hub", name, ["small"])
        return own_net(num_classes=num_classes)

    def fetch(self, name, published, *, num_classes):
        return {key: torch.ones_like(value) for key, value in own_net(num_classes=num_classes).state_dict().items()}


SOURCE = Hub()
"""


def test_a_network_of_the_packages_own_is_one_file(add_part: Callable[..., None]) -> None:
    add_part(families, "own", OWN_FAMILY)
    assert "own_net" in model_names()
    assert build("own_net@random", role="teacher")(torch.randn(2, 3, 2, 2)).logits.shape == (2, 5)
    with pytest.raises(ConfigError, match="Did you mean 'own_net'"):
        build("own_nett")


def test_a_source_of_models_is_one_file(add_part: Callable[..., None]) -> None:
    add_part(families, "own", OWN_FAMILY)
    add_part(sources, "hub", OWN_SOURCE)
    assert str(resolve_model("hub:small@ones", role="teacher")) == "hub:small@ones"
    logits = build("hub:small@ones", role="teacher")(torch.ones(2, 3, 2, 2)).logits
    assert torch.equal(logits, torch.full((2, 5), 6 * 13 + 1.0))
    assert not torch.equal(build("hub:small").head.weight, torch.ones(5, 6))
    refused = {
        "hub:smal": "Did you mean 'small'",
        "hub:small@twos": "Known: ones",
        "hub:": "no model has such a name.*hub:NAME@WEIGHTS",
    }
    for text, message in refused.items():
        with pytest.raises(ConfigError, match=f"(?s){message}"):
            build(text)
    with pytest.raises(ConfigError, match="Write --teacher hub:small@ones"):
        build("hub:small", role="teacher")


def test_the_classifier_runs_in_float32_under_autocast() -> None:
    network, images = build("demo_student").eval(), torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(images)
    rounded = nn.functional.linear(outputs.embedding.bfloat16(), network.head.weight.bfloat16())
    exact = nn.functional.linear(outputs.embedding, network.head.weight, network.head.bias)
    assert outputs.logits.dtype == outputs.embedding.dtype == torch.float32
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(outputs.logits, exact)


def test_the_float32_layer_shares_the_plain_ones_parameters() -> None:
    plain = nn.Linear(4, 3, bias=False)
    shared = Float32Linear.sharing(plain)
    assert shared.weight is plain.weight
    assert shared.bias is None
    assert shared(torch.ones(2, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_a_network_from_the_users_file(user_file: Path) -> None:
    network = build(f"{user_file}:good")
    assert network(torch.randn(2, 3, 2, 2)).logits.shape == (2, 5)
    assert network.embedding_dim == 6


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("goood", "Did you mean 'good'"),
        ("fixed", "7 outputs, the data set has 5"),
        ("convolutional", "its last layer is Conv2d"),
        ("text", "it returned str"),
        ("without_argument", "num_classes="),
        ("broken", r"failed: line \d+: ZeroDivisionError"),
    ],
)
def test_a_users_function_that_does_not_fit_is_named(user_file: Path, function: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(f"{user_file}:{function}")


def test_a_users_file_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import torch\nimport no_such_package\n")
    with pytest.raises(ConfigError, match="no such file"):
        build(f"{tmp_path}/none.py:good")
    with pytest.raises(ConfigError, match=r"line 2: ModuleNotFoundError.*no_such_package"):
        build(f"{tmp_path}/bad.py:good")


def test_logits_that_are_not_the_heads_are_refused(user_file: Path) -> None:
    with pytest.raises(ConfigError, match="Return its output unchanged"):
        build(f"{user_file}:softmax")(torch.randn(2, 3, 2, 2))


def test_a_model_that_returns_no_logits_is_refused() -> None:
    with pytest.raises(ConfigError, match="returns tuple"):
        Network(nn.Sequential(nn.Linear(4, 3), _Pair()))(torch.randn(2, 4))


class _Pair(nn.Module):
    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        return logits, logits


def test_a_size_that_the_model_refuses_is_a_clear_message() -> None:
    with pytest.raises(ConfigError, match=r"(?s)does not take images of shape \(3, 64, 64\).*--resolution"):
        build("vit_b_32").eval()(torch.randn(1, 3, 64, 64))


def test_timm_is_asked_for_by_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # the interpreter's own way to make an import fail
    with pytest.raises(MissingPackageError, match="pip install timm"):
        build("timm:resnet18")


def test_a_timm_network() -> None:
    pytest.importorskip("timm")
    network = build("timm:resnet18@random", role="teacher").eval()
    assert network(torch.randn(1, 3, 64, 64)).logits.shape == (1, 5)
    assert "stage4" in network.tap_names()
    with pytest.raises(ConfigError, match=r"Nearest: .*resnet18"):
        build("timm:resnet1888")
    with pytest.raises(ConfigError, match="1000 classes"):
        build("timm:resnet18@a1_in1k")
