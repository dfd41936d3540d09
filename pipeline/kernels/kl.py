"""KL divergence between softened distributions (Hinton et al. 2015, arXiv:1503.02531, section 2), with one temperature,
one for each sample, or a learned one (CTKD, Li et al. 2023, arXiv:2211.16231).

Legend: B batch, C classes; z logits, p = softmax(z_t / T), q = softmax(z_s / T).
"""

from functools import partial
from math import exp

import torch

from pipeline.kernels.dispatch import use_triton
from pipeline.kernels.rows import (
    Block,
    Divergence,
    Softened,
    Surplus,
    check_rows,
    divergence,
    loss_of_rows,
    scaled_logits,
    soften,
    wants_gradient,
    working_dtype,
)

CTKD_EPS = 1e-7


def kl(
    student_logits_BC: torch.Tensor,
    teacher_logits_BC: torch.Tensor,
    temperature: float | torch.Tensor,
    *,
    eps: float = 0.0,
) -> torch.Tensor:
    """Batch mean of T^2 KL(softmax(teacher / T) || softmax(student / T)), a scalar in float32 (float64 for float64).

    Finite for any finite logits. Gradient to the student is T (q - p) / B; none flows to the teacher. Value and
    gradient are formed together: on CUDA by one Triton kernel, elsewhere by in-place operations.

    Args:
        student_logits_BC: logits of any floating type.
        teacher_logits_BC: logits of any floating type.
        temperature: a number, or a tensor with one element or one for each sample (B or B x 1). Gradient reaches a
            tensor that asks for it, the factor T^2 included.
        eps: added to each teacher probability, without normalising again: CTKD_EPS gives the instance-wise loss of
            CTKD's README.

    Raises:
        ValueError: no rows; another shape or device than the student's.
    """
    check_rows(student_logits_BC, temperature, teacher=(teacher_logits_BC, tuple(student_logits_BC.shape)))
    if use_triton(student_logits_BC, teacher_logits_BC):
        from pipeline.kernels.triton_kl import triton_kl  # optional package

        return triton_kl(student_logits_BC, teacher_logits_BC, temperature, eps=eps)
    return fused(student_logits_BC, teacher_logits_BC, temperature, eps=eps)


def reference(
    student_logits_BC: torch.Tensor,
    teacher_logits_BC: torch.Tensor,
    temperature: float | torch.Tensor,
    *,
    eps: float = 0.0,
) -> torch.Tensor:
    """`kl` as its formula, differentiated by autograd; exact in float64."""
    dtype = working_dtype(student_logits_BC, teacher_logits_BC)
    if isinstance(temperature, torch.Tensor):
        temperature = temperature.to(dtype).reshape(-1, 1)
    student_log_BC = torch.log_softmax(student_logits_BC.to(dtype) / temperature, dim=1)
    teacher_log_BC = torch.log_softmax(teacher_logits_BC.detach().to(dtype) / temperature, dim=1)
    target_BC = teacher_log_BC.exp()
    if eps:
        target_BC = target_BC + eps
        teacher_log_BC = target_BC.log()
    return (temperature**2 * (target_BC * (teacher_log_BC - student_log_BC)).sum(dim=1, keepdim=True)).mean()


def fused(
    student_logits_BC: torch.Tensor,
    teacher_logits_BC: torch.Tensor,
    temperature: float | torch.Tensor,
    *,
    eps: float = 0.0,
) -> torch.Tensor:
    """`kl` in closed form with torch's operations, on any device."""
    moments = wants_gradient(temperature)
    # scratch and the returned gradient stay below two buffers of the logits' size
    buffers = 4 if eps else 3 if moments else 2
    divergences = partial(_shifted, eps=eps, moments=moments) if eps else _plain
    tensors = (student_logits_BC, teacher_logits_BC)
    return loss_of_rows(divergences, tensors, temperature, buffers=buffers, least_blocks=buffers + 1)


def _plain(block: Block, work: list[torch.Tensor]) -> Divergence:
    soft = _softened(block, *work)
    return divergence(soft.p_RC, soft.x_RC, soft.q_RC.sub_(soft.p_RC), soft.teacher)


def _softened(block: Block, b_RC: torch.Tensor, *work: torch.Tensor) -> Softened:
    a_RC, student_RC, teacher_RC, inverse_R1 = block
    return soften(scaled_logits(student_RC, inverse_R1, a_RC), scaled_logits(teacher_RC, inverse_R1, b_RC), *work)


def _shifted(block: Block, work: list[torch.Tensor], *, eps: float, moments: bool) -> Divergence:
    """With r = p + eps in the place of p; r sums to 1 + extra, extra = C eps, and so does (1 + extra) q.

    y = log(r / q) = x + s with s = log(r / p). The temperature moves p, not eps, hence the corrections of the bracket.
    """
    b_RC, p_RC, x_RC, shift_RC = work
    extra = eps * b_RC.shape[1]
    soft = _softened(block, b_RC, p_RC, x_RC)
    _shift(soft, b_RC, eps, shift_RC)
    y_RC = soft.x_RC.add_(shift_RC)
    r_RC = soft.p_RC.add_(eps)
    if not moments or soft.teacher is None:
        difference_RC = soft.q_RC.mul_(1 + extra).sub_(r_RC)
        return divergence(r_RC, y_RC, difference_RC, surplus=Surplus(extra, None))
    centred_RC = b_RC - soft.teacher.mean_R.unsqueeze(1)
    surplus = Surplus(extra, extra * (2 + (soft.q_RC * (y_RC - centred_RC)).sum(1)))
    difference_RC = soft.q_RC.mul_(1 + extra).sub_(r_RC)
    correction_R = eps * centred_RC.mul_(y_RC).sum(1) - shift_RC.mul_(difference_RC).sum(1)
    found = divergence(r_RC, y_RC, difference_RC, soft.teacher, surplus)
    assert found.bracket_R is not None
    return Divergence(found.value_R, found.bracket_R + correction_R)


def _shift(soft: Softened, b_RC: torch.Tensor, eps: float, work_RC: torch.Tensor) -> torch.Tensor:
    """log(1 + eps / p), in `work_RC`; where p is below e^-60 and may be 0 in float32, log eps - log p."""
    below_RC = (soft.log_normalisers()[0] - 60 - b_RC).clamp_min_(0)
    torch.clamp_min(soft.p_RC, exp(-60), out=work_RC).reciprocal_().mul_(eps)
    if work_RC.dtype == torch.float64:
        return work_RC.log1p_().add_(below_RC)
    return work_RC.add_(1).log_().add_(below_RC)  # log1p is 5 times slower, and its digits beyond float32's are lost
