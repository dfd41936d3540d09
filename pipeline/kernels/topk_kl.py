"""KL divergence from a teacher of which k logits and the mass of the rest are known (FKD, TinyViT), at temperature 1.

Legend: B batch, R rows of a block, C classes, k kept; z the student's logits, q its softmax; p the teacher's
distribution: exp(value - logsumexp) for kept classes, the tail mass in equal shares for the others; m = sum p, which is
1 up to the rounding of what was stored.
"""

from math import log

import torch

from pipeline.kernels.dispatch import use_triton
from pipeline.kernels.rows import LEAST_TAIL, Block, Divergence, check_rows, loss_of_rows, working_dtype


def topk_kl(
    student_logits_BC: torch.Tensor,
    indices_BK: torch.Tensor,
    values_BK: torch.Tensor,
    logsumexp_B: torch.Tensor,
    tail_mass_B: torch.Tensor,
) -> torch.Tensor:
    """Batch mean of KL(p || softmax(student)), a scalar in float32 (float64 for float64); no row of p is ever made.

    At temperature 1 only: at others the tail's classes have lost what tells them apart.

    Args:
        student_logits_BC: logits of any floating type.
        indices_BK: kept classes, integers, no class twice in a row.
        values_BK: the teacher's logits of the kept classes.
        logsumexp_B: log sum exp over all of the teacher's logits.
        tail_mass_B: the probability of all other classes together; ignored where k is C.

    Raises:
        ValueError: no rows; another shape or device than the student's.
    """
    rows, kept = student_logits_BC.shape[0], tuple(indices_BK.shape)
    check_rows(
        student_logits_BC,
        indices=(indices_BK, (rows, *kept[1:])),
        values=(values_BK, kept),
        logsumexp=(logsumexp_B, (rows,)),
        tail_mass=(tail_mass_B, (rows,)),
    )
    if use_triton(student_logits_BC, values_BK):
        from pipeline.kernels.triton_topk_kl import triton_topk_kl  # optional package

        return triton_topk_kl(student_logits_BC, indices_BK, values_BK, logsumexp_B, tail_mass_B)
    return fused(student_logits_BC, indices_BK, values_BK, logsumexp_B, tail_mass_B)


def reference(
    student_logits_BC: torch.Tensor,
    indices_BK: torch.Tensor,
    values_BK: torch.Tensor,
    logsumexp_B: torch.Tensor,
    tail_mass_B: torch.Tensor,
) -> torch.Tensor:
    """`topk_kl` with the teacher's distribution made dense; exact in float64."""
    dtype = working_dtype(student_logits_BC, values_BK)
    others = student_logits_BC.shape[1] - indices_BK.shape[1]
    log_share_B = tail_mass_B.to(dtype).clamp_min(LEAST_TAIL).log() - log(max(others, 1))
    log_p_BC = log_share_B.unsqueeze(1).repeat(1, student_logits_BC.shape[1])
    log_p_BC.scatter_(1, indices_BK.long(), values_BK.to(dtype) - logsumexp_B.to(dtype).unsqueeze(1))
    student_log_BC = torch.log_softmax(student_logits_BC.to(dtype), dim=1)
    return (log_p_BC.exp() * (log_p_BC - student_log_BC)).sum(dim=1).mean()


def fused(
    student_logits_BC: torch.Tensor,
    indices_BK: torch.Tensor,
    values_BK: torch.Tensor,
    logsumexp_B: torch.Tensor,
    tail_mass_B: torch.Tensor,
) -> torch.Tensor:
    """`topk_kl` in closed form with torch's operations, on any device."""
    dtype = working_dtype(student_logits_BC, values_BK)
    log_kept_BK = values_BK.to(dtype) - logsumexp_B.to(dtype).unsqueeze(1)
    tail_B1 = tail_mass_B.to(dtype).clamp_min(LEAST_TAIL).unsqueeze(1)
    if indices_BK.shape[1] == student_logits_BC.shape[1]:
        tail_B1.zero_()
    return loss_of_rows(_rows, (student_logits_BC, indices_BK.long(), log_kept_BK, tail_B1))


def _rows(block: Block, _: list[torch.Tensor]) -> Divergence:
    """Each row's divergence; its gradient m q - p is written to the block's first tensor.

    The tail's part is tail (log share - mean of log q over the others): log q = a - log sum exp(a) is summed over all
    classes and over the kept ones.
    """
    out, student_RC, indices_RK, log_kept_RK, tail_R1, _inverse = block
    others = max(student_RC.shape[1] - indices_RK.shape[1], 1)
    torch.sub(student_RC, student_RC.amax(1, keepdim=True).to(out.dtype), out=out)
    kept_RK = out.gather(1, indices_RK)
    rest_R1 = (out.sum(1, keepdim=True) - kept_RK.sum(1, keepdim=True)) / others
    torch.softmax(out, 1, out=out)
    log_normaliser_R1 = -out.amax(1, keepdim=True).log_()
    p_RK, share_R1 = log_kept_RK.exp(), tail_R1 / others
    mass_R1 = p_RK.sum(1, keepdim=True) + tail_R1
    value_R1 = (p_RK * (log_kept_RK - kept_RK)).sum(1, keepdim=True) + mass_R1 * log_normaliser_R1
    value_R1 += torch.special.xlogy(tail_R1, share_R1) - tail_R1 * rest_R1
    out.mul_(mass_R1).sub_(share_R1).scatter_add_(1, indices_RK, share_R1 - p_RK)
    return Divergence(value_R1[:, 0], None)
