"""`dkd` in Triton: a row's value, student gradient and temperature gradient in one launch."""

import torch
import triton
import triton.language as tl

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

_ONE_PASS = ONE_PASS // 2  # beside a row, the label's mask and both parts: more spills registers on sm_80


def triton_dkd(
    student_logits_BC: torch.Tensor,
    teacher_logits_BC: torch.Tensor,
    labels_B: torch.Tensor,
    temperature: float | torch.Tensor,
    *,
    alpha: float,
    beta: float,
    one_pass: int = _ONE_PASS,
) -> torch.Tensor:
    """`dkd` for float32, float16 and bfloat16 logits; rows of more than `one_pass` classes go in pieces."""
    tensors = (student_logits_BC, teacher_logits_BC, labels_B)
    return loss_of_rows(_operator, tensors, temperature, alpha, beta, one_pass)


@torch.library.custom_op("reflux::dkd", mutates_args=())
def _operator(
    student_BC: torch.Tensor,
    moments: bool,
    temperature: torch.Tensor | None,
    number: float,
    teacher_BC: torch.Tensor,
    labels_B: torch.Tensor,
    alpha: float,
    beta: float,
    one_pass: int,
) -> Found:
    """Batch mean, and its gradients by the student's logits and by each row's temperature (empty if not wanted)."""
    found = outputs(student_BC, moments)
    with torch.cuda.device_of(student_BC):
        _kernel[(len(student_BC),)](
            teacher=teacher_BC,
            labels=labels_B,
            alpha=alpha,
            beta=beta,
            **tempered_arguments(student_BC, found, moments, temperature, number, one_pass),
        )
    return found


_operator.register_fake(outputs)


@triton.jit
def _log_sigmoid(odds):
    return tl.minimum(odds, 0.0) - tl.log(1 + tl.exp(-tl.abs(odds)))


@triton.jit
def _bernoulli(odds_t, odds_s, shift):
    """KL, its derivative by the student's log odds, and minus its derivative by the teacher's.

    For a small shift of the log odds, its cumulants; see `dkd._bernoulli` for the rest.
    """
    p = tl.sigmoid(odds_t)
    rest = tl.sigmoid(-odds_t)
    far = p * (_log_sigmoid(odds_t) - _log_sigmoid(odds_s))
    far += rest * (_log_sigmoid(-odds_t) - _log_sigmoid(-odds_s))
    v = p * rest
    d = tl.where(tl.abs(shift) < 0.25, shift, 0.0)
    lean = rest - p
    higher = lean * (1 - 12 * v) / 120 + d * (1 - 30 * v + 120 * v * v) / 720
    near = v * d * d * (1 / 2 + d * (lean / 6 + d * ((1 - 6 * v) / 24 + d * higher)))
    error = tl.where(odds_t > 0, rest - tl.sigmoid(-odds_s), tl.sigmoid(odds_s) - p)
    return tl.where(tl.abs(shift) < 0.25, near, far), error, v * shift


@triton.jit
def _mixed(difference, s, greatest, total, inverse, at, label, error, alpha, beta):
    """Gradient by the scaled logits: alpha e for the label, beta (q - p) - alpha e q for the others."""
    q = tl.exp(tl.where(at == label, 0.0, (s - greatest) * inverse)) / total
    return tl.where(at == label, alpha * error, beta * difference - alpha * error * q)


@triton.jit
def _kernel(
    student,
    teacher,
    labels,
    temperatures,
    number,
    gradient,
    slopes,
    losses,
    mean,
    counter,
    rows,
    classes,
    alpha,
    beta,
    STRIDE_T: tl.constexpr,
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
    factor = temperature / rows
    student += row * classes
    teacher += row * classes
    gradient += row * classes
    label = tl.load(labels + row)
    a_class = (label >= 0) & (label < classes)
    label_s = tl.load(student + label, mask=a_class, other=float("nan")).to(tl.float32)
    label_t = tl.load(teacher + label, mask=a_class, other=float("nan")).to(tl.float32)
    at = tl.arange(0, BLOCK)
    valid = (at < classes) & (at != label)
    if ONE_PASS:
        s = load_row(student, at, at < classes)
        t = load_row(teacher, at, at < classes)
        greatest_s, total_s, mean_s = whole(s, valid, inverse)
        greatest_t, total_t, mean_t = whole(t, valid, inverse)
    else:
        greatest_s, total_s, mean_s = pieces(student, classes, label, 0.0, 1.0, inverse, BLOCK)
        greatest_t, total_t, mean_t = pieces(teacher, classes, label, 0.0, 1.0, inverse, BLOCK)
    label_s = (label_s - greatest_s) * inverse
    label_t = (label_t - greatest_t) * inverse
    shift = label_s - label_t - tl.log(total_s / total_t)
    tckd, error, slope_t = _bernoulli(label_t - tl.log(total_t), label_s - tl.log(total_s), shift)
    stats_s = (greatest_s, total_s)
    stats_t = (greatest_t, total_t)
    if ONE_PASS:
        w, difference, bracket = compare(s, t, valid, stats_s, stats_t, mean_t, inverse, 0.0, classes, False)
        difference = _mixed(difference, s, greatest_s, total_s, inverse, at, label, error, alpha, beta)
        tl.store(gradient + at, difference * factor, mask=at < classes)
        nckd = tl.sum(w, axis=0)
        slope = tl.sum(bracket, axis=0)
    else:
        values = tl.zeros([BLOCK], tl.float32)
        brackets = tl.zeros([BLOCK], tl.float32)
        for start in range(0, classes, BLOCK):
            at = start + tl.arange(0, BLOCK)
            valid = (at < classes) & (at != label)
            s = load_row(student, at, at < classes)
            t = load_row(teacher, at, at < classes)
            w, difference, bracket = compare(s, t, valid, stats_s, stats_t, mean_t, inverse, 0.0, classes, False)
            difference = _mixed(difference, s, greatest_s, total_s, inverse, at, label, error, alpha, beta)
            tl.store(gradient + at, difference * factor, mask=at < classes)
            values += w
            brackets += bracket
        nckd = tl.sum(values, axis=0)
        slope = tl.sum(brackets, axis=0)
    if MOMENTS:
        bernoulli = 2 * tckd + slope_t * (label_t - mean_t) - error * (label_s - mean_s)
        tl.store(slopes + row, factor * (alpha * bernoulli + beta * slope))
    finish(losses, mean, counter, (alpha * tckd + beta * nckd) * temperature * temperature, row, rows, LANES)
