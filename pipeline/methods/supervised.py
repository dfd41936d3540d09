"""No teacher: cross-entropy with the labels. This is how teachers are trained."""

from pipeline.methods.base import R34_R18, R50_MV1, Method, MethodInfo, MethodInput, Needs, Weights

INFO = MethodInfo(
    paper="cross-entropy with the labels",
    published={
        R34_R18: "69.75 to 70.26 (the student alone, by paper)",
        R50_MV1: "68.87, 69.63, 70.13 (the student alone, by paper)",
    },
)


class Supervised(Method):
    """loss = ce * CE."""

    def __init__(self, *, ce: float = 1.0) -> None:
        super().__init__()
        self.weights = Weights(ce=ce, kd=0.0)

    @property
    def needs(self) -> Needs:
        """Nothing."""
        return Needs()

    def forward(self, batch: MethodInput) -> None:
        """No term of its own."""
        return


METHOD = Supervised
