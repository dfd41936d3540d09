"""KL divergence between softened distributions (Hinton et al. 2015, arXiv:1503.02531, section 2).

Legend: B batch, C classes.
"""

import torch


def kl(student_logits_BC: torch.Tensor, teacher_logits_BC: torch.Tensor, temperature: float) -> torch.Tensor:
    """Batch mean of T^2 KL(softmax(teacher / T) || softmax(student / T)), a scalar.

    Computed in log space in float32 (float64 inputs stay float64), so it is finite for any finite logits. The gradient
    with respect to the student is T (softmax(student / T) - softmax(teacher / T)) / B; none flows to the teacher.
    """
    dtype = torch.promote_types(student_logits_BC.dtype, torch.float32)
    student_log_BC = torch.log_softmax(student_logits_BC.to(dtype) / temperature, dim=1)
    teacher_log_BC = torch.log_softmax(teacher_logits_BC.detach().to(dtype) / temperature, dim=1)
    divergence_B = (teacher_log_BC.exp() * (teacher_log_BC - student_log_BC)).sum(dim=1)
    return divergence_B.mean() * temperature**2
