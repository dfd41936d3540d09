"""No teacher: cross-entropy with the labels. This is how teachers are trained."""

from pipeline.methods.base import Method, MethodInput, Needs, Weights


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
