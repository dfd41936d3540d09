"""`kl` and `zscore_kl` in Triton: a row's value, student gradient and temperature gradient in one launch."""

import torch
import triton
import triton.language as tl

from pipeline.kernels.rows import DEVIATION_EPS
from pipeline.kernels.triton_rows import (
    ONE_PASS,
    Found,
    compare,
    finish,
    load_row,
    loss_of_rows,
    outputs,
    pieces,
    tempered_arguments,
    whole,
)


def triton_kl(
    student_logits_BC: torch.Tensor,
    teacher_logits_BC: torch.Tensor,
    temperature: float | torch.Tensor,
    *,
    eps: float = 0.0,
    one_pass: int = ONE_PASS,
) -> torch.Tensor:
    """`kl` for float32, float16 and bfloat16 logits; rows of more than `one_pass` classes go in pieces."""
    return loss_of_rows(_operator, (student_logits_BC, teacher_logits_BC), temperature, eps, False, one_pass)


def triton_zscore_kl(
    student_logits_BC: torch.Tensor,
    teacher_logits_BC: torch.Tensor,
    temperature: float | torch.Tensor,
    *,
    one_pass: int = ONE_PASS,
) -> torch.Tensor:
    """`zscore_kl`, likewise."""
    return loss_of_rows(_operator, (student_logits_BC, teacher_logits_BC), temperature, 0.0, True, one_pass)


@torch.library.custom_op("reflux::kl", mutates_args=())
def _operator(
    student_BC: torch.Tensor,
    moments: bool,
    temperature: torch.Tensor | None,
    number: float,
    teacher_BC: torch.Tensor,
    eps: float,
    standard: bool,
    one_pass: int,
) -> Found:
    """Batch mean, and its gradients by the student's logits and by each row's temperature (empty if not wanted)."""
    found = outputs(student_BC, moments)
    with torch.cuda.device_of(student_BC):
        _kernel[(len(student_BC),)](
            teacher=teacher_BC,
            eps=eps,
            deviation_eps=DEVIATION_EPS,
            EPS=eps > 0,
            STANDARD=standard,
            **tempered_arguments(student_BC, found, moments, temperature, number, one_pass),
        )
    return found


_operator.register_fake(outputs)


@triton.jit
def _centre(logits, classes, deviation_eps, BLOCK: tl.constexpr):
    """Mean, 1 / (eps + deviation) and deviation of a row read in pieces."""
    total = 0.0
    for start in range(0, classes, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.sum(load_row(logits, at, at < classes), axis=0)
    mean = total / classes
    squares = 0.0
    for start in range(0, classes, BLOCK):
        at = start + tl.arange(0, BLOCK)
        valid = at < classes
        centred = tl.where(valid, load_row(logits, at, valid) - mean, 0.0)
        squares += tl.sum(centred * centred, axis=0)
    deviation = tl.sqrt(squares / (classes - 1))
    return mean, 1 / (deviation + deviation_eps), deviation


@triton.jit
def _standardise(z, valid, classes, deviation_eps):
    """A row in registers to standard scores; its deviation."""
    centred = tl.where(valid, z - tl.sum(z, axis=0) / classes, 0.0)
    deviation = tl.sqrt(tl.sum(centred * centred, axis=0) / (classes - 1))
    return centred * (1 / (deviation + deviation_eps)), deviation


@triton.jit
def _through(difference, score, total, along, deviation, deviation_eps, classes):
    """From the gradient by a standard score to the one by its logit; see `zscore_kl._through_standardisation`."""
    shifted = deviation + deviation_eps
    along = along * shifted / (tl.maximum(deviation, 1e-38) * (classes - 1))
    return (difference - total / classes - score * along) / shifted


@triton.jit
def _kernel(
    student,
    teacher,
    temperatures,
    number,
    gradient,
    slopes,
    losses,
    mean,
    counter,
    rows,
    classes,
    eps,
    deviation_eps,
    STRIDE_T: tl.constexpr,
    EPS: tl.constexpr,
    STANDARD: tl.constexpr,
    MOMENTS: tl.constexpr,
    LANES: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK: tl.constexpr,
    ONE_PASS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    classes = classes // ALIGN * ALIGN  # the same number, and the compiler knows by what it divides
    temperature = number
    if STRIDE_T >= 0:
        temperature = tl.load(temperatures + row * STRIDE_T)
    inverse = 1 / temperature
    student += row * classes
    teacher += row * classes
    gradient += row * classes
    factor = temperature / rows
    if ONE_PASS:
        at = tl.arange(0, BLOCK)
        valid = at < classes
        s = load_row(student, at, valid)
        t = load_row(teacher, at, valid)
        if STANDARD:
            s, deviation = _standardise(s, valid, classes, deviation_eps)
            t, _ = _standardise(t, valid, classes, deviation_eps)
        greatest_s, total_s, _ = whole(s, valid, inverse)
        greatest_t, total_t, mean_t = whole(t, valid, inverse)
        w, difference, bracket = compare(
            s, t, valid, (greatest_s, total_s), (greatest_t, total_t), mean_t, inverse, eps, classes, EPS
        )
        value = tl.sum(w, axis=0)
        slope = tl.sum(bracket, axis=0)
        if STANDARD:
            total = tl.sum(difference, axis=0)
            along = tl.sum(difference * s, axis=0)
            difference = _through(difference, s, total, along, deviation, deviation_eps, classes)
        tl.store(gradient + at, difference * factor, mask=valid)
    else:
        mean_z_s, inverse_s, mean_z_t, inverse_t = 0.0, 1.0, 0.0, 1.0
        if STANDARD:
            mean_z_s, inverse_s, deviation = _centre(student, classes, deviation_eps, BLOCK)
            mean_z_t, inverse_t, _ = _centre(teacher, classes, deviation_eps, BLOCK)
        greatest_s, total_s, _ = pieces(student, classes, -1, mean_z_s, inverse_s, inverse, BLOCK)
        greatest_t, total_t, mean_t = pieces(teacher, classes, -1, mean_z_t, inverse_t, inverse, BLOCK)
        values = tl.zeros([BLOCK], tl.float32)
        brackets = tl.zeros([BLOCK], tl.float32)
        totals = tl.zeros([BLOCK], tl.float32)
        alongs = tl.zeros([BLOCK], tl.float32)
        for start in range(0, classes, BLOCK):
            at = start + tl.arange(0, BLOCK)
            valid = at < classes
            s = (load_row(student, at, valid) - mean_z_s) * inverse_s
            t = (load_row(teacher, at, valid) - mean_z_t) * inverse_t
            w, difference, bracket = compare(
                s, t, valid, (greatest_s, total_s), (greatest_t, total_t), mean_t, inverse, eps, classes, EPS
            )
            tl.store(gradient + at, difference * factor, mask=valid)  # first: later, registers would spill on sm_80
            values += w
            brackets += bracket
            if STANDARD:
                totals += difference * factor
                alongs += difference * factor * s
        value = tl.sum(values, axis=0)
        slope = tl.sum(brackets, axis=0)
        if STANDARD:
            total = tl.sum(totals, axis=0)
            along = tl.sum(alongs, axis=0)
            tl.debug_barrier()  # what is read here was stored above
            for start in range(0, classes, BLOCK):
                at = start + tl.arange(0, BLOCK)
                valid = at < classes
                s = (load_row(student, at, valid) - mean_z_s) * inverse_s
                difference = tl.load(gradient + at, mask=valid, other=0.0)
                difference = _through(difference, s, total, along, deviation, deviation_eps, classes)
                tl.store(gradient + at, difference, mask=valid)
    if EPS:
        value += eps * classes
        slope += 2 * eps * classes
    if MOMENTS:
        tl.store(slopes + row, slope * factor)
    finish(losses, mean, counter, value * temperature * temperature, row, rows, LANES)
