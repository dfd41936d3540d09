"""The losses that recipes choose from: their weights are flags.

One dataclass per method, with the names and defaults of its constructor (tests/unit/test_recipes.py compares them; the
methods themselves import torch). Where the training has a flag of the same name, the method's is `--method-NAME`.
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import arg

from pipeline.config import Files, RunConfig, Settings

Student = Annotated[str, arg(help="model that learns, as NAME[@WEIGHTS].")]
LabelWeight = Annotated[float, arg(help="weight of the cross-entropy with the labels.")]


@dataclass(frozen=True)
class Loss:
    """Hyper-parameters of the method that is called `method`."""

    method: ClassVar[str]


@dataclass(frozen=True)
class WeightedLoss(Loss):
    """ce * CE + kd * T^2 KL(teacher || student) + weight * what the method adds.

    Attributes:
        ce: weight of the cross-entropy with the labels.
        kd: weight of the KL divergence from the teacher.
        temperature: temperature T of softened logits; that divergence is multiplied by T^2.
    """

    ce: float = 1.0
    kd: float = 0.0
    temperature: float = 4.0


@dataclass(frozen=True)
class KLLoss(WeightedLoss):
    """ce * CE + kd * T^2 KL(teacher || student)."""

    method: ClassVar[str] = "kd"
    kd: float = 1.0


@dataclass(frozen=True)
class KDLoss(KLLoss):
    """ce * CE + kd * T^2 KL(teacher || student).

    Attributes:
        form: kl, or the cross-entropy with the teacher's probabilities: the same gradient, a greater value.
    """

    form: Literal["kl", "cross_entropy"] = "kl"


@dataclass(frozen=True)
class DKDLoss(WeightedLoss):
    """Decoupled knowledge distillation: how sure of the label, and how the rest is shared, weighed apart.

    Attributes:
        weight: weight of the method's term.
        alpha: weight, in it, of the label against the rest.
        beta: weight, in it, of how the rest is shared.
        warmup_epochs: epochs over which the term rises linearly to its weight.
    """

    method: ClassVar[str] = "dkd"
    temperature: float = 1.0
    weight: float = 1.0
    alpha: float = 1.0
    beta: float = 0.5
    warmup_epochs: Annotated[int, arg(name="method-warmup-epochs")] = 1


@dataclass(frozen=True)
class DISTLoss(WeightedLoss):
    """Correlation with the teacher's probabilities, between classes and within them.

    Attributes:
        weight: weight of the method's term.
        beta: weight, in it, of the correlation between classes, sample by sample.
        gamma: weight, in it, of the correlation within classes, over the samples of a micro-batch.
    """

    method: ClassVar[str] = "dist"
    temperature: float = 1.0
    weight: float = 2.0
    beta: float = 1.0
    gamma: Annotated[float, arg(name="method-gamma")] = 1.0


@dataclass(frozen=True)
class NKDLoss(WeightedLoss):
    """Normalised knowledge distillation: the label by the teacher's confidence, the other classes by what they share.

    Attributes:
        weight: weight of the method's term.
        gamma: weight, in it, of the other classes.
    """

    method: ClassVar[str] = "nkd"
    temperature: float = 1.0
    weight: float = 1.0
    gamma: Annotated[float, arg(name="method-gamma")] = 1.5


@dataclass(frozen=True)
class LSKDLoss(Loss):
    """The base's loss on standardised logits; all its numbers are the base's."""

    method: ClassVar[str] = "lskd"


@dataclass(frozen=True)
class CTKDLoss(Loss):
    """The temperature of the base's loss, trained against the student; its --temperature is refused.

    Attributes:
        mode: one temperature for all samples (global), or one for each (instance).
        schedule: how the strength of its reversed gradient grows.
        loops: epochs until that is complete.
        t_start: least temperature.
        t_end: width of the temperature's range.
        hidden: width of the network that gives a temperature for each sample.
        instance_form: KL where each sample has its temperature: exact, or with 1e-7 as the authors' README has it.
    """

    method: ClassVar[str] = "ctkd"
    mode: Literal["global", "instance"] = "global"
    schedule: Annotated[Literal["cosine", "linear"], arg(name="method-schedule")] = "cosine"
    loops: int = 5
    t_start: float = 1.0
    t_end: float = 20.0
    hidden: int = 128
    instance_form: Literal["readme", "kl"] = "readme"


def distilled(
    recipe: str,
    files: Files,
    student: str,
    teacher: str,
    loss: Loss,
    settings: Settings,
    *,
    base: WeightedLoss | None = None,
) -> RunConfig:
    """A run in which `teacher` teaches `student`; `base` is the loss that a wrapping `loss` (ctkd, lskd) changes."""
    arguments = _arguments(loss)
    if base is not None:
        arguments |= {"base": base.method, "base_args": _arguments(base)}
    return RunConfig(recipe, student, teacher, loss.method, files, arguments, **vars(settings))


def supervised(recipe: str, files: Files, student: str, ce: float, settings: Settings) -> RunConfig:
    """A run in which `student` learns from labels alone."""
    return RunConfig(recipe, student, None, "supervised", files, {"ce": ce}, **vars(settings))


def _arguments(loss: Loss) -> dict[str, Any]:
    """Hyper-parameters as JSON has them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(loss).items()}
