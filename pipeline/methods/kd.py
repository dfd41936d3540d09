"""Knowledge distillation by softened logits (Hinton et al. 2015, arXiv:1503.02531)."""

from pipeline.methods.base import TEACHER_LOGITS, Method, MethodInput, Needs, Weights


class KD(Method):
    """loss = ce * CE + kd * T^2 KL(teacher || student).

    Common settings: SimKD and CTKD ce 1, kd 1, T 4; mdistiller on ImageNet ce 0.5, kd 0.5, T 1; the author of
    RepDistiller on ImageNet ce 0.5, kd 0.9, T 4.
    """

    def __init__(self, *, ce: float = 1.0, kd: float = 1.0, temperature: float = 4.0) -> None:
        super().__init__()
        self.weights = Weights(ce=ce, kd=kd, temperature=temperature)

    @property
    def needs(self) -> Needs:
        """The teacher's logits."""
        return Needs(teacher=TEACHER_LOGITS)

    def forward(self, batch: MethodInput) -> None:
        """No term of its own: the divergence is part of every method's loss."""
        return


METHOD = KD
