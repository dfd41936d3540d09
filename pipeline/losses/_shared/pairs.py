"""The networks that papers train on ImageNet, and who teaches whom."""

from dataclasses import dataclass
from typing import Annotated

from pipeline.core.fields import About

Student = Annotated[str, About("model that learns, as NAME[@WEIGHTS].")]


@dataclass(frozen=True)
class Known:
    """A network as papers call it.

    Attributes:
        title: its name in prose.
        multiply_adds: millions for one image of 224 px.
    """

    title: str
    multiply_adds: float


NETWORKS = {
    "resnet18": Known("ResNet-18", 1814),
    "resnet34": Known("ResNet-34", 3664),
    "resnet50": Known("ResNet-50", 4089),
    "mobilenet_v1": Known("MobileNetV1", 569),
}


def known(network: str) -> Known | None:
    """What is known of NAME[@WEIGHTS]."""
    return NETWORKS.get(network.partition("@")[0])


@dataclass(frozen=True)
class Pair:
    """Who learns, and who teaches."""

    student: Student
    teacher: Annotated[str, About("model that teaches, as NAME@WEIGHTS.")]

    def __str__(self) -> str:
        """Such as ResNet-34 -> ResNet-18."""
        names = (self.teacher, self.student)
        return " -> ".join(name if (found := known(name)) is None else found.title for name in names)


R34_R18 = Pair("resnet18", "resnet34@IMAGENET1K_V1")
R50_R18 = Pair("resnet18", "resnet50@IMAGENET1K_V1")
R50_MBV1 = Pair("mobilenet_v1", "resnet50@IMAGENET1K_V1")
