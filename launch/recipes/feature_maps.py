"""Distillation by feature maps on ImageNet: the teacher runs online."""

from launch.recipes._shared.code_bases import (
    CTKD,
    CTKD_IN_32S,
    MDISTILLER,
    OFD,
    REPDISTILLER,
    REVIEWKD,
    SEMCKD,
    SIMKD,
)
from launch.recipes._shared.recipe import Distilled, recipe
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1, R50_R18
from pipeline.losses.at import ATLoss
from pipeline.losses.fitnet import FitNetLoss
from pipeline.losses.ofd import OFDLoss
from pipeline.losses.reviewkd import ReviewKDLoss
from pipeline.losses.semckd import SemCKDLoss
from pipeline.losses.simkd import SimKDLoss
from pipeline.losses.sp import SPLoss
from pipeline.losses.vid import VIDLoss


@recipe(published=FitNetLoss.published)
def fitnet_r34_r18() -> Distilled:
    """FitNet's hint, ResNet-34's second stage for ResNet-18, with RepDistiller's weights."""
    return Distilled(R34_R18, FitNetLoss(), REPDISTILLER)


@recipe(published=ATLoss.published)
def at_r34_r18() -> Distilled:
    """Attention transfer of ResNet-34 to ResNet-18, as in mdistiller."""
    return Distilled(R34_R18, ATLoss(), MDISTILLER)


@recipe(published=ATLoss.published)
def at_r50_mbv1() -> Distilled:
    """Attention transfer of ResNet-50 to MobileNetV1, with mdistiller's settings.

    mdistiller's code compares stages of different strides here; ours are aligned.
    """
    return Distilled(R50_MBV1, ATLoss(), MDISTILLER)


@recipe(published=SPLoss.published)
def sp_r34_r18() -> Distilled:
    """Similarity-preserving distillation and KD of ResNet-34 to ResNet-18, as in CTKD.

    The term falls as one over the micro-batch: CTKD's eight GPUs see 32 images each (--max-micro-batch).
    More ranks cut the batch finer: then give --reference-batch 32.
    """
    return Distilled(R34_R18, SPLoss(kd=1.0), CTKD_IN_32S)


@recipe()
def vid_r34_r18() -> Distilled:
    """Variational information distillation and KD of ResNet-34 to ResNet-18, as in CTKD."""
    return Distilled(R34_R18, VIDLoss(kd=1.0), CTKD)


@recipe(published=SemCKDLoss.published)
def semckd_r34_r18() -> Distilled:
    """Semantic calibration and KD of ResNet-34 to ResNet-18, as its authors train it, on DALI's random crops.

    54.8 M parameters beside the student's, for micro-batches of 32, its authors' on eight GPUs (--max-micro-batch).
    """
    return Distilled(R34_R18, SemCKDLoss(), SEMCKD)


@recipe(published=ReviewKDLoss.published)
def reviewkd_r34_r18() -> Distilled:
    """Knowledge review of ResNet-34 for ResNet-18, as its authors train it."""
    return Distilled(R34_R18, ReviewKDLoss(), REVIEWKD)


@recipe(published=ReviewKDLoss.published)
def reviewkd_r50_mbv1() -> Distilled:
    """Knowledge review of ResNet-50 for MobileNetV1, as its authors train it."""
    return Distilled(R50_MBV1, ReviewKDLoss(weight=8.0, student_maps="pre", mid_channels=256), REVIEWKD)


@recipe(published=OFDLoss.published)
def ofd_r34_r18() -> Distilled:
    """Overhaul of feature distillation (margin ReLU), ResNet-34 to ResNet-18, with its authors' settings.

    The figures are not by its authors, who train ResNet-50 to MobileNet and ResNet-152 to ResNet-50.
    """
    return Distilled(R34_R18, OFDLoss(teacher_mode="train"), OFD)


@recipe(published=OFDLoss.published)
def ofd_r50_mbv1() -> Distilled:
    """Overhaul of feature distillation (margin ReLU), ResNet-50 to MobileNetV1, as its authors train it."""
    return Distilled(R50_MBV1, OFDLoss(teacher_mode="train"), OFD)


@recipe(published=SimKDLoss.published)
def simkd_r50_r18() -> Distilled:
    """SimKD: ResNet-18 learns ResNet-50's last map and takes its classifier, on DALI's random crops.

    What is evaluated and saved is ResNet-18, the projector and the teacher's classifier.
    """
    return Distilled(R50_R18, SimKDLoss(), SIMKD)


@recipe(published=SimKDLoss.published)
def simkd_r50_mbv1() -> Distilled:
    """SimKD: MobileNetV1 learns ResNet-50's last map and takes its classifier, on DALI's random crops.

    What is evaluated and saved is MobileNetV1, the projector and the teacher's classifier.
    """
    return Distilled(R50_MBV1, SimKDLoss(), SIMKD)
