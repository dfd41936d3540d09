"""Do the fused losses have their formulas' gradients, and keep their promises to autograd, compilers and users?"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.kernels import dkd, kl, rows, topk_kl, zscore_kl
from pipeline.kernels.kl import CTKD_EPS

F64 = torch.float64
B, C = 4, 5
Loss = Callable[..., torch.Tensor]


def topk_of(teacher: torch.Tensor, k: int) -> tuple[torch.Tensor, ...]:
    values, indices = teacher.topk(k)
    tail = torch.softmax(teacher, 1).scatter(1, indices, 0).sum(1)
    return indices, values, teacher.logsumexp(1), tail


def losses(form: str) -> dict[str, Loss]:
    """Each as a function of (student, teacher, temperature); labels and weights are fixed."""

    def decoupled(s: torch.Tensor, t: torch.Tensor, temperature: Any) -> torch.Tensor:
        labels = torch.arange(len(s)) % s.shape[1]
        return getattr(dkd, form)(s, t, labels, temperature, alpha=1.5, beta=0.5)

    return {
        "kl": getattr(kl, form),
        "ctkd": lambda s, t, temperature: getattr(kl, form)(s, t, temperature, eps=CTKD_EPS),
        "dkd": decoupled,
        "zscore_kl": getattr(zscore_kl, form),
    }


def logits(
    rows: int = B, classes: int = C, seed: int = 0, dtype: torch.dtype = F64
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, rows, classes, generator=generator, dtype=F64) * 3
    return drawn[0].to(dtype).requires_grad_(), drawn[1].to(dtype)


SHAPES: list[tuple[int, ...]] = [(), (1,), (B,), (B, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", losses("fused"))
def test_both_gradients_are_those_of_the_value(name: str, shape: tuple[int, ...]) -> None:
    student, teacher = logits()
    temperature = (torch.rand(shape, dtype=F64) * 4 + 1).requires_grad_()
    loss = losses("fused")[name]
    assert torch.autograd.gradcheck(lambda s, t: loss(s, teacher, t), (student, temperature))


@pytest.mark.parametrize("temperature", [0.05, 1.0, 40.0, 1000.0])
@pytest.mark.parametrize("name", losses("fused"))
def test_a_number_as_temperature_is_a_tensor_of_it(name: str, temperature: float) -> None:
    student, teacher = logits()
    loss = losses("fused")[name]
    given, tensor = (
        loss(student, teacher, temperature),
        loss(student, teacher, torch.full((B,), temperature, dtype=F64)),
    )
    torch.testing.assert_close(given, tensor, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        *(torch.autograd.grad(value, student)[0] for value in (given, tensor)), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("k", [1, C - 1, C])
def test_topk_has_the_value_and_gradient_of_its_dense_form(k: int) -> None:
    student, teacher = logits()
    sparse = topk_of(teacher, k)
    assert torch.autograd.gradcheck(lambda s: topk_kl.fused(s, *sparse), (student,))
    ours, dense = topk_kl.fused(student, *sparse), topk_kl.reference(student, *sparse)
    torch.testing.assert_close(ours, dense, rtol=1e-12, atol=1e-14)


def test_topk_of_all_but_one_class_is_the_dense_divergence() -> None:
    student, teacher = logits()
    ours = topk_kl.topk_kl(student, *topk_of(teacher, C - 1))
    torch.testing.assert_close(ours, kl.reference(student, teacher, 1.0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", losses("fused"))
def test_the_incoming_gradient_multiplies(name: str) -> None:
    student, teacher = logits()
    temperature = torch.tensor(3.0, dtype=F64, requires_grad=True)
    loss = losses("fused")[name]
    plain = torch.autograd.grad(loss(student, teacher, temperature), (student, temperature))
    scaled = torch.autograd.grad(loss(student, teacher, temperature) * -0.37, (student, temperature))
    for one, other in zip(plain, scaled, strict=True):
        torch.testing.assert_close(other, one * -0.37, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", losses("fused"))
def test_a_kept_graph_can_be_differentiated_again(name: str) -> None:
    student, teacher = logits()
    value = losses("fused")[name](student, teacher, 2.0)
    first = torch.autograd.grad(value, student, torch.tensor(5.0, dtype=F64), retain_graph=True)[0].clone()
    second = torch.autograd.grad(value, student, torch.tensor(5.0, dtype=F64))[0]
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", losses("fused"))
def test_the_teacher_has_no_gradient_and_logits_are_left_alone(name: str) -> None:
    student, teacher = logits()
    teacher.requires_grad_()
    before = student.detach().clone(), teacher.detach().clone()
    losses("fused")[name](student, teacher, 2.0).backward()
    assert teacher.grad is None
    assert torch.equal(student, before[0])
    assert torch.equal(teacher, before[1])


@pytest.mark.parametrize("name", losses("fused"))
def test_blocks_of_rows_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """5 blocks and more, the last one shorter; each row as if it were alone."""
    monkeypatch.setattr(rows, "_BLOCK_ELEMENTS", 57_344)
    student, teacher = logits(257, 1001, dtype=torch.float32)
    temperature = torch.linspace(0.5, 20, 257).requires_grad_()
    found = losses("fused")[name](student, teacher, temperature)
    expected = losses("reference")[name](student.double(), teacher.double(), temperature.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    gradients = torch.autograd.grad(found, (student, temperature))
    references = torch.autograd.grad(expected, (student, temperature))
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=float(reference.abs().max()) * 1e-4)


@pytest.mark.parametrize("name", losses("fused"))
def test_the_same_twice_to_the_bit(name: str) -> None:
    student, teacher = logits(64, 1000, dtype=torch.float32)
    temperature = torch.linspace(1, 9, 64).requires_grad_()

    def once() -> list[torch.Tensor]:
        value = losses("fused")[name](student, teacher, temperature)
        return [value, *torch.autograd.grad(value, (student, temperature))]

    assert all(torch.equal(one, other) for one, other in zip(once(), once(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", losses("fused"))
def test_half_precision_logits_have_a_float32_loss_and_a_gradient_of_their_type(name: str, dtype: torch.dtype) -> None:
    student, teacher = logits(dtype=dtype)
    value = losses("fused")[name](student, teacher, 4.0)
    exact = losses("reference")[name](student.double(), teacher.double(), 4.0)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(value * 1024, student)
    (expected,) = torch.autograd.grad(exact * 1024, student)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient, expected, rtol=0.01, atol=0.01)


def test_a_loss_scale_is_applied_before_half_precision() -> None:
    """float16 ends at 6e-8: gradients below it survive as their scaled selves."""
    student, teacher = logits(4, 1000, dtype=torch.float16)
    (gradient,) = torch.autograd.grad(kl.fused(student, teacher / 1000, 1.0) * 2.0**16, student)
    exact = torch.autograd.grad(kl.reference(student.double(), teacher.double() / 1000, 1.0), student)[0]
    assert int((gradient == 0).sum()) < int((exact == 0).sum()) + 4


def test_published_underflow_is_finite() -> None:
    student = torch.tensor([[300.0, -300.0, -299.0, -305.0, -301.0]], requires_grad=True)
    teacher = torch.tensor([[-2.0, 1.0, 0.0, 3.0, 1.0]])
    temperature = torch.tensor(1.0, requires_grad=True)
    value = dkd.dkd(student, teacher, torch.tensor([0]), temperature, alpha=1.0, beta=8.0)
    gradients = torch.autograd.grad(value, (student, temperature))
    assert torch.isfinite(value)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_two_classes_have_no_other_shares() -> None:
    student, teacher = logits(5, 2)
    labels = torch.tensor([0, 1, 0, 1, 1])
    assert float(dkd.dkd(student, teacher, labels, 3.0, alpha=0.0, beta=1.0).detach()) == pytest.approx(0.0, abs=1e-15)


def test_equal_logits_have_no_standard_score() -> None:
    student = torch.full((2, 5), 3.0, requires_grad=True)
    value = zscore_kl.zscore_kl(student, torch.randn(2, 5), 2.0)
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_a_temperature_for_another_batch_is_refused() -> None:
    student, teacher = logits()
    with pytest.raises(ValueError, match=r"temperature: \(3,\)\n    logits:      \(4, 5\)"):
        kl.kl(student, teacher, torch.ones(3))


def test_what_cannot_be_compared_is_refused() -> None:
    student, teacher = logits()
    labels = torch.zeros(B, dtype=torch.int64)
    decoupled = {"alpha": 1.0, "beta": 1.0}
    for wrong in (teacher[:, :-1], teacher[:-1], teacher[0]):
        for loss in (
            lambda t: kl.kl(student, t, 1.0),
            lambda t: zscore_kl.zscore_kl(student, t, 1.0),
            lambda t: dkd.dkd(student, t, labels, 1.0, **decoupled),
        ):
            with pytest.raises(ValueError, match="teacher: a loss needs shape"):
                loss(wrong)
    with pytest.raises(ValueError, match="labels: a loss needs shape"):
        dkd.dkd(student, teacher, labels[:-1], 1.0, **decoupled)
    indices, values, *rest = topk_of(teacher, 2)
    with pytest.raises(ValueError, match="values: a loss needs shape"):
        topk_kl.topk_kl(student, indices, values[:, :1], *rest)
    with pytest.raises(ValueError, match="one sample or more"):
        kl.kl(student[:0], teacher[:0], 1.0)


@pytest.mark.parametrize("name", losses("fused"))
def test_a_second_derivative_is_refused(name: str) -> None:
    student, teacher = logits()
    loss = losses("fused")[name](student, teacher, 2.0)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, student, create_graph=True)


def test_a_loss_may_be_added_to_and_differentiated_in_a_batch() -> None:
    student, teacher = logits()
    expected = torch.autograd.grad(kl.kl(student, teacher, 2.0), student)[0]
    total = kl.kl(student, teacher, 2.0)
    total += student.square().mean()
    torch.testing.assert_close(
        torch.autograd.grad(total, student, retain_graph=True)[0], expected + 2 * student.detach() / student.numel()
    )
    factors = torch.tensor([1.0, 3.0], dtype=F64)
    batched = torch.autograd.grad(kl.kl(student, teacher, 2.0), student, factors, is_grads_batched=True)[0]
    torch.testing.assert_close(batched, torch.stack([expected, 3 * expected]))


def test_scratch_memory_of_inference_mode_serves_training() -> None:
    student, teacher = logits(3, 70_000, dtype=torch.float32)  # larger than any buffer before
    with torch.inference_mode():
        kl.kl(student, teacher, 4.0)
    kl.kl(student, teacher, 4.0).backward()
    assert student.grad is not None


@pytest.mark.parametrize("name", losses("fused"))
def test_one_graph_without_breaks(name: str) -> None:
    """The graph capture of torch.compile, without its code generation: nothing asks the host for a value."""
    student, teacher = logits(8, 33, dtype=torch.float32)
    temperature = torch.linspace(0.5, 60, 8).requires_grad_()
    loss = losses("fused")[name]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    values = [form(student, teacher, temperature) for form in (loss, compiled)]
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)
    ours, captured = (torch.autograd.grad(value, (student, temperature)) for value in values)
    torch.testing.assert_close(ours, captured, rtol=1e-4, atol=1e-6)
