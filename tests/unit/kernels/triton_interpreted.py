"""Triton's kernels against float64 references, interpreted: python -m tests.unit.kernels.triton_interpreted

Prints one JSON object: case -> greatest relative errors of value, student gradient and temperature gradient.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels' modules are imported

import numpy as np
import torch

from pipeline.core import rng
from pipeline.kernels import triton_dkd, triton_kl, triton_philox, triton_topk_kl
from tests.unit.kernels.triton_losses import ROWS, Loss, losses, sparse


@dataclass(frozen=True)
class Case:
    """One loss on one kind of logits; `ours` and `exact` take student, teacher, temperature."""

    name: str
    ours: Loss
    exact: Loss
    student: torch.Tensor
    teacher: torch.Tensor
    temperature: torch.Tensor


def cases() -> Iterator[Case]:
    """Rows in registers and rows in pieces, flat to peaked, several types, one temperature and one each."""
    settings = [
        ("registers", 37, 8192, 3.0, torch.float32, torch.tensor([0.05, 4.0, 1000.0])),
        ("registers-great", 130, 8192, 1e4, torch.float32, torch.tensor([[1.0], [20.0], [600.0]])),
        ("registers-bfloat16", 33, 8192, 5.0, torch.bfloat16, torch.tensor(15.6)),
        ("pieces", 161, 32, 3.0, torch.float32, torch.tensor([0.5, 4.0, 1000.0])),
        ("pieces-float16", 100, 32, 300.0, torch.float16, torch.tensor([2.0])),
        ("pieces-one-class", 65, 32, 3.0, torch.float32, torch.tensor(2.0)),  # the label alone in the last piece
    ]
    generator = torch.Generator().manual_seed(0)
    for name, classes, one_pass, scale, dtype, temperature in settings:
        student, teacher = ((torch.randn(ROWS, classes, generator=generator) * scale).to(dtype) for _ in range(2))
        for loss, (ours, exact) in losses(classes, one_pass=one_pass).items():
            yield Case(f"{loss}-{name}", ours, exact, student, teacher, temperature)


def differentiated(loss: Loss, case: Case, *, double: bool) -> tuple[torch.Tensor, ...]:
    """Value and both gradients, with an incoming gradient of 2.5."""
    inputs = [case.student, case.teacher, case.temperature]
    student, teacher, temperature = (tensor.double() if double else tensor.clone() for tensor in inputs)
    value = loss(student.requires_grad_(), teacher, temperature.requires_grad_())
    gradients = torch.autograd.grad(value * 2.5, (student, temperature))
    assert double or (value.dtype, gradients[0].dtype) == (torch.float32, case.student.dtype)
    return (value.detach(), *gradients)


def errors(case: Case) -> list[float]:
    found, exact = differentiated(case.ours, case, double=False), differentiated(case.exact, case, double=True)
    assert all(torch.isfinite(tensor).all() for tensor in found), case.name
    return [float((a - b).abs().max() / b.abs().max().clamp_min(1e-6)) for a, b in zip(found, exact, strict=True)]


def others() -> dict[str, list[float]]:
    """Same bits twice; one graph of torch.compile; a number as temperature."""
    case = next(cases())
    first, second = (differentiated(case.ours, case, double=False) for _ in range(2))
    compiled = torch.compile(case.ours, fullgraph=True, backend="aot_eager")
    captured = differentiated(compiled, case, double=False)
    no_class = triton_dkd.triton_dkd(case.student, case.teacher, torch.tensor([0, -1, 37]), 4.0, alpha=1.0, beta=1.0)
    number = triton_kl.triton_kl(case.student, case.teacher, 4.0)
    tensor = triton_kl.triton_kl(case.student, case.teacher, torch.full((ROWS,), 4.0))
    return {
        "deterministic": [float((a - b).abs().max()) for a, b in zip(first, second, strict=True)],
        "compiled": [float((a - b).abs().max()) for a, b in zip(first, captured, strict=True)],
        "number": [float((number - tensor).abs())],
        "no class": [float(no_class.isnan()), *_written_beside()],
        "philox": _philox(),
    }


def _philox() -> list[float]:
    """The greatest difference to the host's words: of one counter and of rows in pieces, at the ends of every word."""
    ids, last = torch.tensor([0, 1_281_166, 2**32 - 1]), 2**32 - 1
    found = []
    for key, epoch, num_blocks, draw in [((0, 0), 0, 1, 0), ((7, 6), 1, 5, 1), ((last, last), last, 1030, last)]:
        ours = triton_philox.triton_row_words(ids, epoch, num_blocks, draw, key=key).numpy()
        exact = rng.philox(rng.counters((ids.numpy()[:, None], epoch, np.arange(num_blocks), draw)), key)
        found.append(float(np.abs(ours - exact.reshape(ours.shape)).max()))
    return found


def _written_beside() -> list[float]:
    """For a top-k index that is no class: whether the loss is NaN, and whether its neighbours' gradients are theirs."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(ROWS, 40, generator=generator) for _ in range(2))
    indices, *others = sparse(teacher)
    gradients = []
    for wrong in (int(indices[1, 0]), 40, -1):
        indices[1, 0] = wrong
        loss = triton_topk_kl.triton_topk_kl(student.requires_grad_(), indices, *others)
        gradients.append(torch.autograd.grad(loss, student)[0][[0, 2]])
    return [float(loss.isnan()), *(float(torch.equal(each, gradients[0])) for each in gradients[1:])]


if __name__ == "__main__":
    print(json.dumps({case.name: errors(case) for case in cases()} | others()))
