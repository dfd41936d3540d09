"""KL divergence between softened, standardised logits (LSKD, Sun et al. 2024, arXiv:2403.01427).

Legend: B batch, R rows of a block, C classes; z logits, m and s their mean and unbiased deviation over classes,
z' = (z - m) / (1e-7 + s).
"""

import torch

from pipeline.kernels.dispatch import use_triton
from pipeline.kernels.kl import reference as kl_reference
from pipeline.kernels.rows import (
    DEVIATION_EPS,
    Block,
    Divergence,
    check_rows,
    divergence,
    loss_of_rows,
    scaled_logits,
    soften,
    wants_gradient,
    working_dtype,
)


def standardise(logits_BC: torch.Tensor) -> torch.Tensor:
    """z', in float32 or float64, with gradient: for losses that have no fused form of their own."""
    logits_BC = logits_BC.to(working_dtype(logits_BC))
    centred_BC = logits_BC - logits_BC.mean(dim=1, keepdim=True)
    return centred_BC / (DEVIATION_EPS + logits_BC.std(dim=1, keepdim=True))


def zscore_kl(
    student_logits_BC: torch.Tensor, teacher_logits_BC: torch.Tensor, temperature: float | torch.Tensor
) -> torch.Tensor:
    """Batch mean of T^2 KL(softmax(teacher' / T) || softmax(student' / T)), a scalar in float32 (float64 for float64).

    The student's deviation is differentiated; no gradient flows to the teacher.

    Args:
        student_logits_BC: logits of any floating type.
        teacher_logits_BC: logits of any floating type.
        temperature: a number, or a tensor with one element or one for each sample; gradient reaches a tensor that asks
            for it, the factor T^2 included.

    Raises:
        ValueError: no rows; another shape or device than the student's.
    """
    check_rows(student_logits_BC, temperature, teacher=(teacher_logits_BC, tuple(student_logits_BC.shape)))
    if use_triton(student_logits_BC, teacher_logits_BC):
        from pipeline.kernels.triton_kl import triton_zscore_kl  # optional package

        return triton_zscore_kl(student_logits_BC, teacher_logits_BC, temperature)
    return fused(student_logits_BC, teacher_logits_BC, temperature)


def reference(
    student_logits_BC: torch.Tensor, teacher_logits_BC: torch.Tensor, temperature: float | torch.Tensor
) -> torch.Tensor:
    """`zscore_kl` as its formula, differentiated by autograd; exact in float64."""
    dtype = working_dtype(student_logits_BC, teacher_logits_BC)
    student_BC, teacher_BC = standardise(student_logits_BC.to(dtype)), standardise(teacher_logits_BC.detach().to(dtype))
    return kl_reference(student_BC, teacher_BC, temperature)


def fused(
    student_logits_BC: torch.Tensor, teacher_logits_BC: torch.Tensor, temperature: float | torch.Tensor
) -> torch.Tensor:
    """`zscore_kl` in closed form with torch's operations, on any device."""
    buffers = 3 if wants_gradient(temperature) else 2
    return loss_of_rows(_rows, (student_logits_BC, teacher_logits_BC), temperature, buffers=buffers)


def _rows(block: Block, work: list[torch.Tensor]) -> Divergence:
    (a_RC, student_RC, teacher_RC, inverse_R1), (b_RC, p_RC, *more) = block, work
    scaled_logits(_standardise(teacher_RC, b_RC)[0], inverse_R1, b_RC)
    _, deviation_R1 = _standardise(student_RC, a_RC)
    scaled_logits(a_RC, inverse_R1, a_RC)
    soft = soften(a_RC, b_RC, p_RC, *more)
    difference_RC = soft.q_RC.sub_(soft.p_RC)
    found = divergence(soft.p_RC, soft.x_RC, difference_RC, soft.teacher)
    standard_RC, _ = _standardise(student_RC, b_RC)
    _through_standardisation(difference_RC, standard_RC, deviation_R1, p_RC)
    return found


def _standardise(logits_RC: torch.Tensor, out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Standard scores in `out`, and the deviation (R, 1)."""
    torch.sub(logits_RC, logits_RC.mean(1, keepdim=True, dtype=out.dtype), out=out)
    deviation_R1 = torch.linalg.vector_norm(out, dim=1, keepdim=True).div_((out.shape[1] - 1) ** 0.5)
    return out.mul_((deviation_R1 + DEVIATION_EPS).reciprocal_()), deviation_R1


def _through_standardisation(
    gradient_RC: torch.Tensor, standard_RC: torch.Tensor, deviation_R1: torch.Tensor, work_RC: torch.Tensor
) -> None:
    """From the gradient g by z' to the one by z, in place; `standard_RC` is destroyed.

    dL/dz = [g - mean(g) - z' (sum_c g z') (eps + s) / ((C - 1) s)] / (eps + s); the term with z' is 0 where s is.
    """
    classes, shifted_R1 = gradient_RC.shape[1], deviation_R1 + DEVIATION_EPS
    along_R1 = torch.mul(gradient_RC, standard_RC, out=work_RC).sum(1, keepdim=True)
    along_R1.mul_(shifted_R1 / (deviation_R1.clamp_min(torch.finfo(deviation_R1.dtype).tiny) * (classes - 1)))
    gradient_RC.sub_(standard_RC.mul_(along_R1)).sub_(gradient_RC.mean(1, keepdim=True)).mul_(shifted_R1.reciprocal_())
