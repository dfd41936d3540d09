"""The losses on embeddings and feature maps; see losses.py."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tyro.conf import arg

from launch.recipes.losses import WeightedLoss

_STAGES = ("stage1", "stage2", "stage3", "stage4")
_Stage = Annotated[str, arg(name="method-stage")]


@dataclass(frozen=True)
class FitNetLoss(WeightedLoss):
    """Mean squared error between a regression of one student map, and the teacher's.

    Attributes:
        weight: weight of the method's term.
        stage: the map compared.
        variant: where the student's map is smaller and not just half the teacher's: repdistiller refuses, simkd pools.
    """

    method: ClassVar[str] = "fitnet"
    weight: float = 100.0
    stage: _Stage = "stage2"
    variant: Literal["repdistiller", "simkd"] = "simkd"


@dataclass(frozen=True)
class ATLoss(WeightedLoss):
    """Mean squared difference of normalised attention maps, summed over stages.

    Attributes:
        weight: weight of the method's term.
        stages: the maps compared.
        variant: repdistiller is the paper's; seed004 is that of PkuDavidGuan/Distillation, worse than no teacher.
    """

    method: ClassVar[str] = "at"
    weight: float = 1000.0
    stages: tuple[str, ...] = _STAGES
    variant: Literal["repdistiller", "seed004"] = "repdistiller"


@dataclass(frozen=True)
class SPLoss(WeightedLoss):
    """Difference of the similarities between a micro-batch's maps.

    Attributes:
        weight: weight of the method's term.
        stages: the maps compared.
        reference_batch: micro-batch for which the weight is meant: the term falls as one over the micro-batch, and this
            makes up for it (default: as published, without).
    """

    method: ClassVar[str] = "sp"
    weight: float = 3000.0
    stages: tuple[str, ...] = ("stage4",)
    reference_batch: int | None = None


@dataclass(frozen=True)
class VIDLoss(WeightedLoss):
    """Likelihood of the teacher's maps given the student's, with a learned variance a channel.

    Attributes:
        weight: weight of the method's term.
        stages: the maps compared.
        mid_channels: channels inside each regression (default: the teacher's map's).
    """

    method: ClassVar[str] = "vid"
    weight: float = 1.0
    stages: tuple[str, ...] = _STAGES
    mid_channels: int | None = None


@dataclass(frozen=True)
class SemCKDLoss(WeightedLoss):
    """Every pair of stages regressed, weighed by attention; its parameters fit one micro-batch size.

    Attributes:
        weight: weight of the method's term.
        stages: the student's maps.
        teacher_stages: the teacher's, of any number (default: the student's).
        soft: divides the attention's logits.
    """

    method: ClassVar[str] = "semckd"
    kd: float = 1.0
    weight: float = 50.0
    stages: tuple[str, ...] = _STAGES
    teacher_stages: tuple[str, ...] | None = None
    soft: float = 1.0


@dataclass(frozen=True)
class ReviewKDLoss(WeightedLoss):
    """Student maps, fused from the deepest up, against the teacher's.

    Attributes:
        weight: weight of the method's term.
        stages: the maps compared; the pooled embedding is the last level.
        student_maps: the student's before or after their last activation.
        teacher_maps: the same for the teacher's.
        mid_channels: channels in which levels are fused.
        warmup_epochs: epochs over which the term rises linearly to its weight.
        first_epoch: the first epoch's number in that.
    """

    method: ClassVar[str] = "reviewkd"
    weight: float = 1.0
    stages: tuple[str, ...] = _STAGES
    student_maps: Literal["post", "pre"] = "post"
    teacher_maps: Literal["post", "pre"] = "post"
    mid_channels: int = 512
    warmup_epochs: Annotated[int, arg(name="method-warmup-epochs")] = 0
    first_epoch: Literal[0, 1] = 0


@dataclass(frozen=True)
class OFDLoss(WeightedLoss):
    """Distance between maps before the ReLU, where the teacher's margin says that it matters.

    Attributes:
        weight: weight of the method's term.
        stages: the maps compared, shallow to deep.
        teacher_mode: train, as the authors mean it, lets the teacher normalise by the micro-batch's statistics.
    """

    method: ClassVar[str] = "ofd"
    weight: float = 1e-4
    stages: tuple[str, ...] = _STAGES
    teacher_mode: Literal["eval", "train"] = "eval"


@dataclass(frozen=True)
class SimKDLoss(WeightedLoss):
    """Mean squared error between the student's projected last map and the teacher's; the teacher's classifier is used.

    Attributes:
        weight: weight of the method's term.
        factor: the projector's inner channels are the teacher's over this.
        stage: the last map.
    """

    method: ClassVar[str] = "simkd"
    ce: float = 0.0
    weight: float = 1.0
    factor: int = 2
    stage: _Stage = "stage4"


@dataclass(frozen=True)
class PKTLoss(WeightedLoss):
    """Which samples of a micro-batch are alike by their embeddings, for the teacher and the student.

    Attributes:
        weight: weight of the method's term.
        reference_batch: micro-batch for which the weight is meant: the term falls as one over the micro-batch, and this
            makes up for it (default: as published, without).
    """

    method: ClassVar[str] = "pkt"
    weight: float = 30000.0
    reference_batch: int | None = None


@dataclass(frozen=True)
class CRDLoss(WeightedLoss):
    """A sample's two embeddings against many others from memory banks.

    Attributes:
        weight: weight of the method's term.
        feature_dim: dimensions in which embeddings are compared.
        num_negatives: other samples that each is compared with.
        contrast_temperature: temperature of these comparisons.
        momentum: share of a bank's old row that is kept.
        positive: compare with the sample itself (exact) or a random sample of its class (relax).
    """

    method: ClassVar[str] = "crd"
    weight: float = 0.8
    feature_dim: int = 128
    num_negatives: int = 16384
    contrast_temperature: float = 0.07
    momentum: Annotated[float, arg(name="method-momentum")] = 0.5
    positive: Literal["exact", "relax"] = "exact"


@dataclass(frozen=True)
class SRRLLoss(WeightedLoss):
    """The student's connected features, compared with the teacher's embedding and read by the teacher's classifier.

    Attributes:
        weight: weight of the method's term.
        logit_weight: weight, in it, of what the teacher's classifier reads.
        form: map, as published, connects the last map; pooled, as in SimKD and CTKD, the embedding: another method.
        stage: the student's map of the first form.
    """

    method: ClassVar[str] = "srrl"
    weight: float = 1.0
    logit_weight: float = 1.0
    form: Literal["map", "pooled"] = "map"
    stage: _Stage = "stage4"
