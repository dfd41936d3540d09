"""Curriculum temperature on ImageNet: T is trained against the student, around several methods.

T is logged at each step, and drawn in the run's curves.png.
"""

from launch.recipes._shared.code_bases import CTKD, CTKD_IN_32S
from launch.recipes._shared.recipe import Distilled, recipe
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses.ctkd import CTKDLoss


@recipe(published=CTKDLoss.published)
def ctkd_r34_r18() -> Distilled:
    """Curriculum temperature around KD of ResNet-34 to ResNet-18, as its authors train it."""
    return Distilled(R34_R18, CTKDLoss.around("kd"), CTKD)


@recipe(published=CTKDLoss.published)
def ctkd_r50_mbv1() -> Distilled:
    """Curriculum temperature around KD of ResNet-50 to MobileNetV1, as its authors train it."""
    return Distilled(R50_MBV1, CTKDLoss.around("kd"), CTKD)


@recipe()
def ctkd_instance_r34_r18() -> Distilled:
    """Curriculum temperature for each sample, around KD of ResNet-34 to ResNet-18.

    The network that gives temperatures is not part of the authors' release; its width is ours.
    """
    return Distilled(R34_R18, CTKDLoss.around("kd", mode="instance"), CTKD)


@recipe(published=CTKDLoss.published_with["DKD"])
def ctkd_dkd_r34_r18() -> Distilled:
    """Curriculum temperature around decoupled KD of ResNet-34 to ResNet-18, as its authors train it."""
    return Distilled(R34_R18, CTKDLoss.around("dkd"), CTKD)


@recipe(published=CTKDLoss.published_with["PKT"])
def ctkd_pkt_r34_r18() -> Distilled:
    """Curriculum temperature around PKT with KD of ResNet-34 to ResNet-18, as its authors train it.

    The term of the base falls as one over the micro-batch: CTKD's eight GPUs see 32 images each (--max-micro-batch).
    More ranks cut the batch finer: then give --reference-batch 32.
    """
    return Distilled(R34_R18, CTKDLoss.around("pkt"), CTKD_IN_32S)


@recipe()
def ctkd_sp_r34_r18() -> Distilled:
    """Curriculum temperature around SP with KD of ResNet-34 to ResNet-18, as its authors train it.

    The term of the base falls as one over the micro-batch: see ctkd_pkt_r34_r18.
    """
    return Distilled(R34_R18, CTKDLoss.around("sp"), CTKD_IN_32S)


@recipe()
def ctkd_vid_r34_r18() -> Distilled:
    """Curriculum temperature around VID with KD of ResNet-34 to ResNet-18, as its authors train it."""
    return Distilled(R34_R18, CTKDLoss.around("vid"), CTKD)


@recipe()
def ctkd_crd_r34_r18() -> Distilled:
    """Curriculum temperature around CRD with KD of ResNet-34 to ResNet-18, with its authors' settings.

    The authors' code cannot run it on ImageNet. Memory: as crd_r34_r18.
    """
    return Distilled(R34_R18, CTKDLoss.around("crd"), CTKD)


@recipe(published=CTKDLoss.published_with["SRRL"])
def ctkd_srrl_r34_r18() -> Distilled:
    """Curriculum temperature around pooled SRRL with KD of ResNet-34 to ResNet-18, as its authors train it."""
    return Distilled(R34_R18, CTKDLoss.around("srrl", {"form": "pooled"}), CTKD)
