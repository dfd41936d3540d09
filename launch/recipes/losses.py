"""The losses that recipes choose from: their weights are flags."""

from dataclasses import asdict, dataclass

from pipeline.core.config import Files, RunConfig, Settings


@dataclass(frozen=True)
class KDLoss:
    """ce * CE + kd * T^2 KL(teacher || student).

    Attributes:
        ce: weight of the cross-entropy with the labels.
        kd: weight of the KL divergence from the teacher.
        temperature: temperature T of that divergence, which is multiplied by T^2.
    """

    ce: float = 1.0
    kd: float = 1.0
    temperature: float = 4.0


def distilled(recipe: str, files: Files, student: str, teacher: str, loss: KDLoss, settings: Settings) -> RunConfig:
    """A run in which `teacher` teaches `student` by its logits."""
    return RunConfig(recipe, student, teacher, "kd", files, asdict(loss), **vars(settings))


def supervised(recipe: str, files: Files, student: str, ce: float, settings: Settings) -> RunConfig:
    """A run in which `student` learns from labels alone."""
    return RunConfig(recipe, student, None, "supervised", files, {"ce": ce}, **vars(settings))
