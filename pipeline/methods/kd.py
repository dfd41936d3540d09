"""Knowledge distillation by softened logits (Hinton et al. 2015, arXiv:1503.02531)."""

from typing import Any, Literal

import torch
from torch.nn.functional import log_softmax

from pipeline.methods.base import R34_R18, R50_MV1, TEACHER_LOGITS, Method, MethodInfo, MethodInput, Needs, Weights
from pipeline.methods.parts import in_float32

INFO = MethodInfo(
    paper="Hinton et al. 2015, arXiv:1503.02531",
    published={
        R34_R18: "70.83 (CTKD's README), 70.27 and 70.48 (reproduced, in its issue 7);"
        " other settings: 71.03 (mdistiller's README), 71.37 (torchdistill), 70.66 (CRD's baseline in READMEs)",
        R50_MV1: "70.50 (mdistiller's README), 68.58 (unchecked)",
    },
)

PRESETS: dict[str, dict[str, Any]] = {
    "simkd": {"ce": 1.0, "kd": 1.0, "temperature": 4.0},
    "ctkd": {"ce": 1.0, "kd": 1.0, "temperature": 4.0},
    "repdistiller": {"ce": 0.1, "kd": 0.9, "temperature": 4.0},  # its CIFAR-100 setting
    "repdistiller_imagenet": {"ce": 0.5, "kd": 0.9, "temperature": 4.0},  # by its author, in its issue 10
    "mdistiller": {"ce": 0.5, "kd": 0.5, "temperature": 1.0},
    "mdistiller_cifar": {"ce": 0.1, "kd": 0.9, "temperature": 4.0},
    "seed003": {"ce": 0.9, "kd": 0.1, "temperature": 20.0},
    "seed004": {"ce": 0.8, "kd": 0.2, "temperature": 16.0, "form": "cross_entropy"},
}


class KD(Method):
    """loss = ce * CE + kd * T^2 KL(teacher || student).

    The public "alpha" means opposite things: junia3/Knowledge-Distillation-With-Pytorch (preset "seed003") weighs the
    divergence by it, PkuDavidGuan/Distillation ("seed004") the cross-entropy, although its README says otherwise.

    Args:
        ce: weight of the cross-entropy.
        kd: weight of the divergence.
        temperature: T.
        form: "kl", or "cross_entropy" with the teacher's probabilities: the same gradient, the value is greater by
            T^2 times the teacher's entropy.
    """

    def __init__(
        self,
        *,
        ce: float = 1.0,
        kd: float = 1.0,
        temperature: float = 4.0,
        form: Literal["kl", "cross_entropy"] = "kl",
    ) -> None:
        super().__init__()
        self.weights = Weights(ce=ce, kd=kd, temperature=temperature)
        self._form = form

    @property
    def needs(self) -> Needs:
        """The teacher's logits."""
        return Needs(teacher=TEACHER_LOGITS)

    def divergence(self, batch: MethodInput) -> torch.Tensor:
        """KL_T, with the teacher's entropy added where the form asks for it."""
        divergence = super().divergence(batch)
        if self._form == "kl":
            return divergence
        temperature = self.weights.temperature  # a number: CTKD refuses to learn it in this form
        log_BC = log_softmax(in_float32(batch.taught.logits) / temperature, dim=1)
        return divergence - temperature**2 * (log_BC.exp() * log_BC).sum(dim=1).mean()

    def forward(self, batch: MethodInput) -> None:
        """No term of its own: the divergence is part of every method's loss."""
        return


METHOD = KD
