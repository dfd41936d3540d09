"""What the record of a method is: its hyper-parameters, what it needs, and what is published of it. Imports no torch.

The total loss is always ce * CE + kd * KL_T + weight * method: three explicit weights, never one "alpha", whose meaning
is opposite in public code bases.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Self

from pipeline.core.errors import ConfigError
from pipeline.core.fields import About, flag
from pipeline.core.ranges import ABOVE_0, NOT_NEGATIVE
from pipeline.losses._shared.pairs import Pair

STAGES = ("stage1", "stage2", "stage3", "stage4")
NOT_MAPS = frozenset({"logits", "embedding", "head"})
_MANY_CLASSES = 100  # of a generous top-k row

Published = Mapping[Pair, str]

KD = Annotated[float, About("weight of the KL divergence from the teacher.", NOT_NEGATIVE)]
Temperature = Annotated[
    float, About("temperature T of softened logits; that divergence is multiplied by T^2.", ABOVE_0)
]
Weight = Annotated[float, About("weight of the method's term.", NOT_NEGATIVE)]
LabelWeight = Annotated[float, About("weight of the cross-entropy with the labels.", NOT_NEGATIVE)]
Stages = Annotated[tuple[str, ...], About("the maps compared.")]
ReferenceBatch = Annotated[
    int | None,
    About(
        "micro-batch for which the weight is meant: the term falls as one over the micro-batch, and this makes up for"
        " it (default: as published, without).",
        ABOVE_0,
    ),
]


@dataclass(frozen=True)
class Needs:
    """What a method has to be given.

    Attributes:
        teacher: teacher outputs: "logits", "embedding", "head", or names of feature taps.
        student: names of the student's feature taps.
        norms: those of the teacher's ".pre" taps whose BatchNorm's scale and shift are wanted, see `Setting`.
        teacher_mode: "train" runs the teacher on the batch's own BatchNorm statistics, and its running averages drift.
    """

    teacher: frozenset[str] = frozenset()
    student: frozenset[str] = frozenset()
    norms: frozenset[str] = frozenset()
    teacher_mode: Literal["eval", "train"] = "eval"


LOGITS = Needs(teacher=frozenset({"logits"}))
EMBEDDING = Needs(teacher=frozenset({"logits", "embedding"}))


def before_activation(stages: tuple[str, ...]) -> tuple[str, ...]:
    """The taps of stages before their last activation."""
    return tuple(f"{stage}.pre" for stage in stages)


def same_maps(stages: tuple[str, ...]) -> Needs:
    """The same taps of both networks, and the teacher's logits."""
    return Needs(teacher=frozenset({"logits", *stages}), student=frozenset(stages))


@dataclass(frozen=True)
class Weights:
    """Factors of the three terms of the loss, and the temperature.

    Attributes:
        ce: of the cross-entropy with the labels.
        kd: of the temperature-scaled KL divergence from the teacher.
        temperature: T of that divergence, and of an own term that softens logits (DKD, DIST, NKD).
        method: of the method's own term.
    """

    ce: float = 1.0
    kd: float = 0.0
    temperature: float = 4.0
    method: float = 0.0


@dataclass(frozen=True)
class Loss(ABC):
    """The record of one method; a subclass in a file of `pipeline/losses` is that of the method with the file's name.

    Attributes:
        name: of the method.
        paper: first author, year and where to read it.
        published: ImageNet top-1 in per cent, each figure with its source: {R34_R18: "71.17 (README)"}. Figures
            recalled from a paper and not looked up are marked "unchecked".
        published_with: the same with other values or beside another loss: {"KD": {R34_R18: "71.38 (unchecked)"}}.
        multiply_adds: millions that its trainable parts add to a forward pass of one image of 224 px.
        only_alone: hyper-parameters that a method around this one does not take.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    published: ClassVar[Published] = {}
    published_with: ClassVar[Mapping[str, Published]] = {}
    multiply_adds: ClassVar[Mapping[Pair, float]] = {}
    only_alone: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = cls.__module__.rpartition(".")[2]

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, tuple) and (not value or len(set(value)) < len(value)):
                raise ConfigError(f"{flag(name)} must name one feature tap or more, each once, got {list(value)}")

    @classmethod
    def from_json(cls, arguments: Mapping[str, Any]) -> Self:
        """The record with these hyper-parameters; others have their defaults.

        Raises:
            ConfigError: an unknown hyper-parameter.
        """
        known = [item.name for item in fields(cls)]
        unknown = sorted(set(arguments) - set(known))
        if unknown:
            raise ConfigError(f"method '{cls.name}' has no hyper-parameter {unknown}; it has {known}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()})

    def to_json(self) -> dict[str, Any]:
        """Inverse of `from_json`; every hyper-parameter is there."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What the method reads."""

    @property
    @abstractmethod
    def weights(self) -> Weights:
        """Factors of the terms."""

    def work(self, pair: Pair) -> float:
        """Millions of multiply-adds of the method's own parts, forward, for one image."""
        return self.multiply_adds.get(pair, 0.0)

    def refuses_topk(self, num_kept: int) -> str | None:
        """Why the teacher's `num_kept` greatest logits and their tail mass do not serve; None where they do.

        Default: they serve CE and KL at temperature 1. At T = 4 with 20 of 1,000 kept, the gradient is off by more than
        its own length.
        """
        weights = self.weights
        if weights.method == 0 and weights.temperature == 1:
            return None
        return f"the loss needs all logits (temperature {weights.temperature:g}; top-k serves KL at temperature 1)"

    @property
    def stores(self) -> tuple[str, ...]:
        """Kinds of store that hold what the method reads, cheapest first; () where its teacher must run online."""
        wanted = self.needs.teacher
        if not wanted or wanted - NOT_MAPS or self.needs.teacher_mode == "train":
            return ()
        if wanted & {"embedding", "head"}:
            return ("embedding",)
        return (*(("topk",) if self.refuses_topk(_MANY_CLASSES) is None else ()), "embedding", "dense")


@dataclass(frozen=True)
class WeightedLoss(Loss):
    """ce * CE + kd * T^2 KL(teacher || student)."""

    ce: LabelWeight = 1.0
    kd: KD = 0.0
    temperature: Temperature = 4.0

    @property
    def needs(self) -> Needs:
        """The teacher's logits, and what a method adds to them."""
        return LOGITS

    @property
    def weights(self) -> Weights:
        """The three fields; no term of its own."""
        return Weights(self.ce, self.kd, self.temperature)


@dataclass(frozen=True)
class TermLoss(WeightedLoss):
    """ce * CE + kd * T^2 KL(teacher || student) + weight * what the method adds."""

    weight: Weight = 1.0

    @property
    def weights(self) -> Weights:
        """The four fields."""
        return Weights(self.ce, self.kd, self.temperature, self.weight)


@dataclass(frozen=True)
class MapsLoss(TermLoss):
    """One whose own term compares the same stages of both networks."""

    stages: Stages = STAGES

    @property
    def needs(self) -> Needs:
        """The same stages of both networks."""
        return same_maps(self.stages)


class SoftTermLoss(TermLoss):
    """One whose own term softens logits by T too: top-k rows serve it at temperature 1."""

    def refuses_topk(self, num_kept: int) -> str | None:
        """At temperature 1 they serve."""
        return None if self.temperature <= 1 else super().refuses_topk(num_kept)
