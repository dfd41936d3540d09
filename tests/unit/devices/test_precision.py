"""What a precision means to the libraries' switches, and that a frozen teacher's rounding changes no output."""

import os
import types
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d
from torch.nn.utils import weight_norm

from pipeline.devices.numerics import fix_compiler, fixed_numerics, running_in, set_kernels
from pipeline.models.network import Network
from pipeline.models.outputs import Outputs
from pipeline.teachers.runner import TeacherRunner

CPU = torch.device("cpu")
SWITCHES = (
    (torch.backends.cudnn, "allow_tf32"),
    (torch.backends.cudnn, "benchmark"),
    (torch.backends.cudnn, "deterministic"),
    (torch.backends.cuda.matmul, "allow_tf32"),
    (torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction"),
    (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"),
    (torch.utils.deterministic, "fill_uninitialized_memory"),
    (torch._dynamo.config, "automatic_dynamic_shapes"),
    (torch._inductor.config, "deterministic"),
)


@pytest.fixture(autouse=True)
def switches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test sets for its process is put back for the others."""
    before = [getattr(place, name) for place, name in SWITCHES]
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    torch.use_deterministic_algorithms(False)
    for (place, name), value in zip(SWITCHES, before, strict=True):
        setattr(place, name, value)


@pytest.mark.parametrize(("precision", "tf32"), [("off", False), ("fp32", False), ("bf16", True), ("fp16", True)])
def test_float32_means_float32(precision: str, tf32: bool) -> None:
    set_kernels(deterministic=False, precision=precision)
    assert torch.backends.cudnn.allow_tf32 == tf32
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
    assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction


def test_a_float32_teacher_beside_a_half_precision_student_runs_without_tf32() -> None:
    set_kernels(deterministic=False, precision="bf16")
    with running_in(CPU, "fp32"):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32
    with running_in(CPU, "fp16"):
        assert torch.backends.cudnn.allow_tf32


def test_deterministic_kernels_do_not_fill_memory_that_is_written_anyway() -> None:
    set_kernels(deterministic=True, precision="fp32")
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


def test_the_compiler_makes_one_set_of_kernels_for_every_batch_size() -> None:
    fix_compiler()
    assert not torch._dynamo.config.automatic_dynamic_shapes
    assert torch._inductor.config.deterministic
    compiled, batches = [], (4, 7, 9)

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        compiled.append([value.shape[0] for value in inputs if isinstance(value, torch.Tensor)])
        return graph

    torch._dynamo.reset()
    doubled = torch.compile(lambda images: 2 * images, backend=backend)
    for batch in batches:
        doubled(torch.ones(batch, 3))
    assert compiled == [[batch] for batch in batches], "a size that is not a number would be a symbol"


def test_a_torch_without_the_field_is_left_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    older = types.SimpleNamespace()
    monkeypatch.setattr(torch._inductor, "config", older)
    fix_compiler()
    assert not vars(older), "torch 2.9's configuration raises AttributeError for names that it does not know"


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_block_in_a_stores_numerics_leaves_the_runs_own_behind_it(deterministic: bool) -> None:
    def found() -> list[object]:
        process = (
            torch.get_deterministic_debug_mode(),
            torch.get_num_threads(),
            os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        )
        return [*process, *(getattr(place, name) for place, name in SWITCHES)]

    set_kernels(deterministic=deterministic, precision="bf16")
    before = found()
    with fixed_numerics(CPU):
        assert torch.backends.cudnn.deterministic
        assert torch.is_deterministic_algorithms_warn_only_enabled(), "a run refuses what a store warns of"
        assert (torch.backends.cudnn.allow_tf32, torch.get_num_threads()) == (False, 1)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert found() == before


class Standardised(nn.Conv2d):
    """Computes its weight in float32 before autocast rounds it, as weight standardisation does."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert self.weight.dtype == torch.float32
        return conv2d(images, self.weight - self.weight.mean(), self.bias, padding=self.padding)


def network() -> Network:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), Standardised(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3)]
    return Network(nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_frozen_teachers_convolutions_are_rounded_once_and_give_the_same_bits(precision: str) -> None:
    images = torch.randn(4, 3, 16, 16)
    plain = network().eval().to(memory_format=torch.channels_last)
    with torch.no_grad(), running_in(CPU, precision):
        expected: Outputs = plain(images)
    teacher = TeacherRunner(
        network(),
        device=CPU,
        precision=precision,
    )
    found = teacher.forward(images)
    assert torch.equal(found.logits, expected.logits)
    assert found.embedding is not None
    assert torch.equal(found.embedding, expected.embedding)
    dtypes = [parameter.dtype for parameter in teacher.network.parameters()]
    assert dtypes.count(torch.float32) == 6, "BatchNorm's two, the standardised layer's two, the classifier's two"


class LeavesAutocast(nn.Module):
    """Runs one of its convolutions in float32, whatever its surroundings, and one with a weight that it normalises."""

    def __init__(self) -> None:
        super().__init__()
        self.outside = nn.Conv2d(8, 8, 3, padding=1)
        self.normed = weight_norm(nn.Conv2d(8, 8, 3, padding=1))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            exact = self.outside(maps.float())
        normed: torch.Tensor = self.normed(exact)
        return normed


def leaving_network() -> Network:
    torch.manual_seed(0)
    return Network(
        nn.Sequential(
            nn.Conv2d(3, 8, 3), LeavesAutocast(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(8, 5)
        )
    )


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
def test_convolutions_that_autocast_does_not_reach_keep_their_weights() -> None:
    images, plain = torch.randn(4, 3, 16, 16), leaving_network().eval().to(memory_format=torch.channels_last)
    with torch.no_grad(), running_in(CPU, "bf16"):
        expected: Outputs = plain(images)
    teacher = TeacherRunner(
        leaving_network(),
        device=CPU,
        precision="bf16",
    )
    generator = torch.get_rng_state()
    with torch.inference_mode():  # as an evaluation asks
        assert torch.equal(teacher.forward(images).logits, expected.logits)
    assert torch.equal(teacher.forward(images).logits, expected.logits)
    assert not any(parameter.is_inference() for parameter in teacher.network.parameters())
    assert torch.equal(torch.get_rng_state(), generator), "the look at the network draws nothing"
    dtypes = {name: parameter.dtype for name, parameter in teacher.network.model.named_parameters()}
    half = {name for name, dtype in dtypes.items() if dtype == torch.bfloat16}
    assert half == {"0.weight", "0.bias", "1.normed.bias"}


class Flattening(nn.AdaptiveAvgPool2d):
    """A pooling that also flattens."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return super().forward(maps).flatten(1)


def test_a_pooling_with_a_forward_of_its_own_keeps_it_and_gets_float32() -> None:
    student = Network(nn.Sequential(nn.Conv2d(3, 8, 3), Flattening(1), nn.Linear(8, 5)))
    with running_in(CPU, "bf16"):
        assert student(torch.randn(4, 3, 16, 16)).embedding.shape == (4, 8)


@pytest.mark.parametrize("size", [1, (1, 1), 2])
def test_student_and_teacher_pool_in_float32(size: int | tuple[int, int]) -> None:
    pooled = 4 if size == 2 else 1
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(size), nn.Flatten(), nn.Linear(8 * pooled, 5))
    body, images = model[0], torch.randn(4, 3, 16, 16)
    student = Network(model)
    with running_in(CPU, "bf16"):
        maps = body(images)
        outputs = student(images)
    assert maps.dtype == torch.bfloat16
    expected = nn.AdaptiveAvgPool2d(size)(maps.float()).flatten(1)
    assert outputs.embedding.dtype == torch.float32
    torch.testing.assert_close(outputs.embedding, expected, rtol=1e-6, atol=1e-6)
    outputs.logits.sum().backward()
    assert body.weight.grad is not None


def test_pooling_inside_the_body_stays_as_it_is() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(4), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 5),
    )  # fmt: skip
    inner, seen = model[1], []
    inner.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    with running_in(CPU, "bf16"):
        Network(model)(torch.randn(2, 3, 16, 16))
    assert seen == [torch.bfloat16]
