"""Decoupled distillation (Zhao et al. 2022, arXiv:2203.08679): how sure of the label, and how the rest is shared.

Legend: B batch, R rows of a block, C classes; y labels; p, q softmax of the teacher's and the student's logits over the
classes that are not the label; u = log(p_y / (1 - p_y)) the log odds of the label, of teacher (t) and student (s).
TCKD = KL(Bernoulli(sigmoid(u_t)) || Bernoulli(sigmoid(u_s))), NCKD = KL(p || q).
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.functional import logsigmoid

from pipeline.kernels.dispatch import use_triton
from pipeline.kernels.rows import (
    Block,
    Divergence,
    check_rows,
    divergence,
    loss_of_rows,
    soften,
    wants_gradient,
    working_dtype,
)

_FAR_BELOW = -1e30  # stands for -inf in the label's place: still finite after a division by the temperature


def dkd(
    student_logits_BC: torch.Tensor,
    teacher_logits_BC: torch.Tensor,
    labels_B: torch.Tensor,
    temperature: float | torch.Tensor,
    *,
    alpha: float,
    beta: float,
) -> torch.Tensor:
    """Batch mean of T^2 (alpha TCKD + beta NCKD), a scalar in float32 (float64 for float64).

    Finite for any finite logits, where the published code takes the logarithm of sums that underflow; the label is left
    out of NCKD exactly, not by subtracting 1000. With two classes NCKD is 0. No gradient flows to the teacher.

    Args:
        student_logits_BC: logits of any floating type.
        teacher_logits_BC: logits of any floating type.
        labels_B: int64; on CUDA one that is no class makes the loss NaN.
        temperature: a number, or a tensor with one element or one for each sample; gradient reaches a tensor that asks
            for it, the factor T^2 included.
        alpha: weight of TCKD.
        beta: weight of NCKD.

    Raises:
        ValueError: no rows; another shape or device than the student's.
    """
    inputs = (student_logits_BC, teacher_logits_BC, labels_B, temperature)
    shape = tuple(student_logits_BC.shape)
    check_rows(student_logits_BC, temperature, teacher=(teacher_logits_BC, shape), labels=(labels_B, shape[:1]))
    if use_triton(student_logits_BC, teacher_logits_BC):
        from pipeline.kernels.triton_dkd import triton_dkd  # optional package

        return triton_dkd(*inputs, alpha=alpha, beta=beta)
    return fused(*inputs, alpha=alpha, beta=beta)


def reference(
    student_logits_BC: torch.Tensor,
    teacher_logits_BC: torch.Tensor,
    labels_B: torch.Tensor,
    temperature: float | torch.Tensor,
    *,
    alpha: float,
    beta: float,
) -> torch.Tensor:
    """`dkd` as its formula, differentiated by autograd; exact in float64."""
    dtype = working_dtype(student_logits_BC, teacher_logits_BC)
    if isinstance(temperature, torch.Tensor):
        temperature = temperature.to(dtype).reshape(-1, 1)
    student_B2, student_log_BC = _split(student_logits_BC.to(dtype) / temperature, labels_B)
    teacher_B2, teacher_log_BC = _split(teacher_logits_BC.detach().to(dtype) / temperature, labels_B)
    tckd_B1 = (teacher_B2.exp() * (teacher_B2 - student_B2)).sum(1, keepdim=True)
    nckd_B1 = (teacher_log_BC.exp() * (teacher_log_BC - student_log_BC)).sum(1, keepdim=True)
    return (temperature**2 * (alpha * tckd_B1 + beta * nckd_B1)).mean()


def _split(scaled_BC: torch.Tensor, labels_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of label and rest (B, 2), and of each other class within the rest (B, C - 1)."""
    classes = scaled_BC.shape[1]
    others = torch.arange(classes - 1, device=scaled_BC.device).expand(len(scaled_BC), -1)
    others_BC = scaled_BC.gather(1, others + (others >= labels_B.unsqueeze(1)))
    label_B1 = scaled_BC.gather(1, labels_B.unsqueeze(1))
    rest_B1 = torch.logsumexp(others_BC, 1, keepdim=True)
    return torch.log_softmax(torch.cat([label_B1, rest_B1], 1), 1), torch.log_softmax(others_BC, 1)


def fused(
    student_logits_BC: torch.Tensor,
    teacher_logits_BC: torch.Tensor,
    labels_B: torch.Tensor,
    temperature: float | torch.Tensor,
    *,
    alpha: float,
    beta: float,
) -> torch.Tensor:
    """`dkd` in closed form with torch's operations, on any device."""
    tensors = (student_logits_BC, teacher_logits_BC, labels_B[:, None])
    buffers = 4 if wants_gradient(temperature) else 3
    return loss_of_rows(partial(_rows, alpha=alpha, beta=beta), tensors, temperature, buffers=buffers)


def _scaled_others(
    logits_RC: torch.Tensor, labels_R1: torch.Tensor, inverse_R1: torch.Tensor, out: torch.Tensor
) -> torch.Tensor:
    """(z - greatest of the others) / T to `out`, the label far below; and the label's own, (R, 1)."""
    label_R1 = logits_RC.gather(1, labels_R1).to(out.dtype)
    out.copy_(logits_RC).scatter_(1, labels_R1, _FAR_BELOW)
    greatest_R1 = out.amax(1, keepdim=True)
    out.sub_(greatest_R1).mul_(inverse_R1)
    return (label_R1 - greatest_R1) * inverse_R1


def _rows(block: Block, work: list[torch.Tensor], *, alpha: float, beta: float) -> Divergence:
    """Both parts of each row, weighed; the block's first tensor becomes the gradient by the student's scaled logits.

    That gradient is, with e = q_y - p_y of the whole softmax: alpha e for the label, and
    beta (q - p) - alpha e q for the others. With a fourth buffer there are brackets too.
    """
    (a_RC, student_RC, teacher_RC, labels_R1, inverse_R1), (b_RC, p_RC, share_RC, *x_RC) = block, work
    label_s_R1 = _scaled_others(student_RC, labels_R1, inverse_R1, a_RC)
    label_t_R1 = _scaled_others(teacher_RC, labels_R1, inverse_R1, b_RC)
    if x_RC:
        student_mean_R1 = (torch.softmax(a_RC, 1, out=p_RC).mul_(a_RC)).sum(1, keepdim=True)
    soft = soften(a_RC, b_RC, p_RC, *x_RC)
    normaliser_t_R1, normaliser_s_R1 = soft.log_normalisers()
    shift_R1 = (label_s_R1 - label_t_R1) - (normaliser_s_R1 - normaliser_t_R1)
    tckd = _bernoulli(label_t_R1 - normaliser_t_R1, label_s_R1 - normaliser_s_R1, shift_R1)
    torch.mul(soft.q_RC, alpha * tckd.error_R1, out=share_RC)
    difference_RC = soft.q_RC.sub_(soft.p_RC)
    nckd = divergence(soft.p_RC, soft.x_RC, difference_RC, soft.teacher)
    difference_RC.mul_(beta).sub_(share_RC).scatter_(1, labels_R1, alpha * tckd.error_R1)
    value_R = alpha * tckd.value_R1[:, 0] + beta * nckd.value_R
    if soft.teacher is None or nckd.bracket_R is None:
        return Divergence(value_R, None)
    slope_t_R1 = label_t_R1 - soft.teacher.mean_R.unsqueeze(1)  # -T du_t/dT
    slope_s_R1 = label_s_R1 - student_mean_R1
    tckd_R1 = 2 * tckd.value_R1 + tckd.teacher_slope_R1 * slope_t_R1 - tckd.error_R1 * slope_s_R1
    return Divergence(value_R, alpha * tckd_R1[:, 0] + beta * nckd.bracket_R)


@dataclass(frozen=True)
class Bernoulli:
    """KL of two Bernoulli distributions.

    Attributes:
        value_R1: the divergence.
        error_R1: its derivative by the student's log odds, q_y - p_y.
        teacher_slope_R1: minus its derivative by the teacher's log odds, p_y (1 - p_y) (u_s - u_t).
    """

    value_R1: torch.Tensor
    error_R1: torch.Tensor
    teacher_slope_R1: torch.Tensor


def _bernoulli(teacher_R1: torch.Tensor, student_R1: torch.Tensor, shift_R1: torch.Tensor) -> Bernoulli:
    """Of log odds u_t and u_s; `shift_R1` is u_s - u_t, given for its digits.

    For a small shift d, log(1 + p (e^d - 1)) - p d; else in log-sigmoids, where nothing cancels or overflows.
    """
    p_R1, rest_R1 = torch.sigmoid(teacher_R1), torch.sigmoid(-teacher_R1)
    near_R1 = shift_R1.clamp(-0.5, 0.5)
    near_value_R1 = torch.log1p(p_R1 * torch.expm1(near_R1)) - p_R1 * near_R1
    far_value_R1 = p_R1 * (logsigmoid(teacher_R1) - logsigmoid(student_R1)) + rest_R1 * (
        logsigmoid(-teacher_R1) - logsigmoid(-student_R1)
    )
    # the smaller of the two probabilities has the digits
    error_R1 = torch.where(teacher_R1 > 0, rest_R1 - torch.sigmoid(-student_R1), torch.sigmoid(student_R1) - p_R1)
    return Bernoulli(
        torch.where(shift_R1.abs() < 0.5, near_value_R1, far_value_R1), error_R1, p_R1 * rest_R1 * shift_R1
    )
