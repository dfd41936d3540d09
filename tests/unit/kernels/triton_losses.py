"""The losses that have Triton kernels, each beside its reference."""

from collections.abc import Callable

import torch

from pipeline.kernels import dkd, kl, topk_kl, triton_dkd, triton_kl, triton_topk_kl, zscore_kl

ROWS = 3
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def losses(classes: int, kept: int = 3, **limit: int) -> dict[str, tuple[Loss, Loss]]:
    """By name, Triton's form and the reference; both take the student's and the teacher's logits and a temperature.

    Args:
        classes: of the logits.
        kept: of the teacher's greatest logits, in a top-k row.
        limit: `one_pass`, where it is not the form's own.
    """
    labels = torch.tensor([0, classes // 2, classes - 1])
    weights = {"alpha": 1.5, "beta": 0.5}
    return {
        "kl": (lambda s, t, T: triton_kl.triton_kl(s, t, T, **limit), kl.reference),
        "ctkd": (
            lambda s, t, T: triton_kl.triton_kl(s, t, T, eps=kl.CTKD_EPS, **limit),
            lambda s, t, T: kl.reference(s, t, T, eps=kl.CTKD_EPS),
        ),
        "zscore_kl": (
            lambda s, t, T: triton_kl.triton_zscore_kl(s, t, T, **limit),
            zscore_kl.reference,
        ),
        "dkd": (
            lambda s, t, T: triton_dkd.triton_dkd(s, t, labels, T, **weights, **limit),
            lambda s, t, T: dkd.reference(s, t, labels, T, **weights),
        ),
        "topk_kl": (
            lambda s, t, T: triton_topk_kl.triton_topk_kl(s, *sparse(t, kept), **limit) + 0 * T.sum(),
            lambda s, t, T: topk_kl.reference(s, *sparse(t, kept)) + 0 * T.sum(),
        ),
    }


def sparse(teacher: torch.Tensor, kept: int = 3) -> tuple[torch.Tensor, ...]:
    """What a store keeps of the `kept` greatest logits: indices, values, logsumexp, mass of the tail."""
    values, indices = teacher.double().topk(kept)
    tail = torch.softmax(teacher.double(), 1).scatter(1, indices, 0).sum(1)
    return indices.to(torch.int16), values.float(), teacher.double().logsumexp(1).float(), tail.float()
