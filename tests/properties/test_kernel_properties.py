"""Losses on logits nobody wrote down: equal to the formula in float64, finite, at any temperature and magnitude.

The reference is computed in float64 from the same float32 (or half) logits. A loss is T^2 times a divergence whose
float32 noise is about 1e-8, so noise may reach 1e-8 T^2 where two distributions agree in most classes and differ in
few; and the spacing of float32 next to 1, where 1e-7 is added to a probability of 1.
"""

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import dkd, kl, topk_kl, zscore_kl
from pipeline.kernels.kl import CTKD_EPS

TEMPERATURES = st.floats(0.05, 1000)
KINDS = st.sampled_from(["normal", "ties", "dominated", "same", "one_hot_apart", "constant"])
DTYPES = st.sampled_from([torch.float32, torch.float32, torch.float16, torch.bfloat16])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    rows, classes = draw(st.integers(1, 9)), draw(st.integers(2, 70) | st.sampled_from([1000, 1001]))
    kind, dtype = draw(KINDS), draw(DTYPES)
    scale = draw(st.sampled_from([0.1, 1.0, 10.0, 1e4]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    student, teacher = (np.clip(rng.standard_normal((rows, classes)) * scale, -1e4, 1e4) for _ in range(2))
    if kind == "ties":
        student, teacher = np.round(student / scale) * scale, np.round(teacher / scale) * scale
    elif kind == "dominated":
        student[:, 0], teacher[:, -1] = 1e4, 1e4
    elif kind == "same":
        student = teacher + draw(st.floats(-1e3, 1e3))
    elif kind == "one_hot_apart":
        student, teacher = np.full_like(student, -1e4), np.full_like(teacher, -1e4)
        student[:, 0], teacher[:, 1] = 1e4, 1e4
    elif kind == "constant":
        teacher = np.full_like(teacher, scale)
    return torch.tensor(student, dtype=dtype), torch.tensor(teacher, dtype=dtype)


def check(
    module: Any,
    student: torch.Tensor,
    teacher: torch.Tensor,
    temperature: torch.Tensor,
    noise: float = 2e-8,
    **options: Any,
) -> None:
    """Value, student's gradient and temperature's gradient of `module`'s fused form against its reference."""
    value, gradients = differentiated(module.fused, student, teacher, temperature, **options)
    exact, references = differentiated(
        module.reference, student.double(), teacher.double(), temperature.double(), **options
    )
    highest = float(temperature.max())
    assert torch.isfinite(value)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    torch.testing.assert_close(value.double(), exact, rtol=2e-5, atol=noise * max(1.0, highest**2))
    tolerance = {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 8e-3}[student.dtype]
    close(gradients[0], references[0], tolerance, 3e-7 * max(1.0, highest))
    close(gradients[1], references[1], 1e-3, 2e-6 * max(1.0, highest))


def close(found: torch.Tensor, exact: torch.Tensor, rtol: float, atol: float) -> None:
    """Within `rtol` of the greatest element."""
    torch.testing.assert_close(found.double(), exact.double(), rtol=rtol, atol=atol + rtol * float(exact.abs().max()))


def differentiated(
    loss: Any, student: torch.Tensor, teacher: torch.Tensor, temperature: torch.Tensor, **options: Any
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    student, temperature = student.clone().requires_grad_(), temperature.clone().requires_grad_()
    more = options.pop("labels", None)
    inputs = (student, teacher) if more is None else (student, teacher, more)
    value = loss(*inputs, temperature, **options)
    return value.detach(), torch.autograd.grad(value, (student, temperature))


def spread(temperature: float, rows: int) -> torch.Tensor:
    """One for each row, up to twice as high, below 1000."""
    return torch.linspace(temperature, min(2 * temperature, 1000.0), rows)


@settings(max_examples=80)
@given(pairs(), TEMPERATURES)
def test_kl(pair: tuple[torch.Tensor, torch.Tensor], temperature: float) -> None:
    check(kl, *pair, spread(temperature, len(pair[0])))


@settings(max_examples=40)
@given(pairs(), TEMPERATURES)
def test_kl_of_ctkd_instances(pair: tuple[torch.Tensor, torch.Tensor], temperature: float) -> None:
    check(kl, *pair, spread(temperature, len(pair[0])), noise=2e-7, eps=CTKD_EPS)


@settings(max_examples=60)
@given(pairs(), TEMPERATURES, st.integers(0, 2**16))
def test_dkd(pair: tuple[torch.Tensor, torch.Tensor], temperature: float, seed: int) -> None:
    rows, classes = pair[0].shape
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, classes, rows))
    check(dkd, *pair, spread(temperature, rows), labels=labels, alpha=1.0, beta=2.0)


@settings(max_examples=40)
@given(pairs(), TEMPERATURES)
def test_zscore_kl_is_the_divergence_of_standard_scores(
    pair: tuple[torch.Tensor, torch.Tensor], temperature: float
) -> None:
    student, teacher = pair
    wide = student.double().std(1).min() > 1e-3 and student.shape[1] > 2  # else the gradient is 0, or noise / 1e-7
    found, _ = differentiated(zscore_kl.fused, student, teacher, torch.tensor(temperature))
    assert torch.isfinite(found)
    if wide:
        check(zscore_kl, student, teacher, spread(temperature, len(student)))


@settings(max_examples=40)
@given(pairs(), st.integers(1, 1000))
def test_topk_kl(pair: tuple[torch.Tensor, torch.Tensor], kept: int) -> None:
    student, teacher = pair[0].clone().requires_grad_(), pair[1].double()
    values, indices = teacher.topk(min(kept, teacher.shape[1]))
    tail = torch.softmax(teacher, 1).scatter(1, indices, 0).sum(1)
    sparse = (indices, values.float(), teacher.logsumexp(1).float(), tail.float())
    found = topk_kl.fused(student, *sparse)
    exact = topk_kl.reference(student.double(), indices, *(part.double() for part in sparse[1:]))
    torch.testing.assert_close(found.double(), exact, rtol=2e-5, atol=1e-6)
    gradient, reference = (torch.autograd.grad(value, student)[0] for value in (found, exact))
    assert torch.isfinite(gradient).all()
    close(gradient, reference, 8e-3 if student.dtype == torch.bfloat16 else 1e-3, 1e-6)
