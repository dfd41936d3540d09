"""Each fused loss, value and gradients, against its formula in float64 on the processor."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from benchmarks.gpu.findings import Outcome, Part, Setting, check
from benchmarks.kernels.measure import FUSED, REFERENCE, Inputs, make_inputs
from pipeline.kernels import kl

SECTION = (2, "fused losses against float64", 60)

Loss = Callable[[Inputs], torch.Tensor]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# greatest relative errors, as tests/unit/kernels/test_kernels_triton.py bounds the interpreted kernels
_VALUE, _TEMPERATURE = 2e-5, 1e-3
_STUDENT = {"fp32": 1e-4, "fp16": 1e-3, "bf16": 8e-3}  # a gradient is rounded to its logits' type


@dataclass(frozen=True)
class Case:
    """A loss as the project has it and as its formula; `learned` where the temperature's gradient is wanted too."""

    ours: Loss
    exact: Loss
    learned: bool = False


CASES = {
    "kl, learned T": Case(FUSED["kl"], REFERENCE["kl"], learned=True),
    "kl as CTKD's": Case(
        lambda i: kl.kl(i.student, i.teacher, i.temperature, eps=kl.CTKD_EPS),
        lambda i: kl.reference(i.student, i.teacher, i.temperature, eps=kl.CTKD_EPS),
        learned=True,
    ),
    **{name: Case(ours, REFERENCE[name]) for name, ours in FUSED.items()},
}


def parts(setting: Setting) -> list[Part]:
    """A part for each loss: all numbers of classes, all types of logits."""
    return [Part(name, partial(_compare, name, setting)) for name in CASES]


def sizes(setting: Setting) -> tuple[int, tuple[int, ...]]:
    """Rows, and values of C; the last is too long for a row in registers."""
    return setting.pick((64, (100, 1000, 21841)), (16, (100, 1000, 21841)), (6, (100, 1000, 9000)))


def inputs_of(rows: int, classes: int, dtype: torch.dtype, *, learned: bool) -> Inputs:
    """Logits on the processor, so that the formula's result is independent of the device."""
    made = make_inputs(rows, classes, torch.device("cpu"), learned=learned)
    return replace(made, student=made.student.detach().to(dtype).requires_grad_(), teacher=made.teacher.to(dtype))


def differentiated(loss: Loss, inputs: Inputs) -> list[torch.Tensor]:
    """Value, the student's gradient, and the temperature's where it is learned."""
    value = loss(inputs)
    wanted = [inputs.student, *([inputs.temperature] if inputs.temperature.requires_grad else [])]
    return [value.detach(), *torch.autograd.grad(value, wanted)]


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Greatest difference over the greatest value, in float64 on the processor; infinite where not finite."""
    error = (found.double().cpu() - exact.cpu()).abs().max() / exact.abs().max().cpu().clamp_min(1e-12)
    return float(error) if torch.isfinite(error) else float("inf")


def _compare(name: str, setting: Setting) -> Outcome:
    case, (rows, classes) = CASES[name], sizes(setting)
    errors, worst = {}, 0.0
    for (kind, dtype), width in itertools.product(DTYPES.items(), classes):
        given = inputs_of(rows, width, dtype, learned=case.learned)
        found = differentiated(case.ours, given.copied(setting.device))
        exact = differentiated(case.exact, given.copied("cpu", torch.float64))
        bounds = (_VALUE, _STUDENT[kind], _TEMPERATURE)
        each = [relative_error(*pair) for pair in zip(found, exact, strict=True)]
        errors[f"{kind} C={width}"] = each
        worst = max(worst, *(error / bound for error, bound in zip(each, bounds, strict=False)))
    text = f"greatest relative error {max(map(max, errors.values())):.1e}, {worst:.2g} of its bound at most"
    return check(worst <= 1, f"{text}; B={rows}, C={', '.join(map(str, classes))}", errors=errors)
