"""Distillation by logits on ImageNet.

Where teacher and student run in one job, most of the cost is the teacher; stored logits or embeddings
(`python -m precompute`, --store) bring each of these runs near to plain training.
"""

from launch.recipes._shared.code_bases import CLS_KD, CLS_KD_MBV1, CTKD, DIST, MDISTILLER, REPDISTILLER
from launch.recipes._shared.recipe import Distilled, recipe
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses.dist import DISTLoss
from pipeline.losses.dkd import DKDLoss
from pipeline.losses.kd import KDLoss
from pipeline.losses.lskd import LSKDLoss
from pipeline.losses.nkd import NKDLoss


@recipe(published=KDLoss.published)
def kd_r34_r18() -> Distilled:
    """ResNet-34 teaches ResNet-18 by its logits: KD with the settings of CTKD and SimKD.

    CTKD's teacher is a checkpoint of its own, 73.96 by its README; here it is torchvision's, see vanilla_r34.
    """
    return Distilled(R34_R18, KDLoss(), CTKD)


@recipe(published=KDLoss.published)
def kd_r50_mbv1() -> Distilled:
    """ResNet-50 teaches MobileNetV1 by its logits: KD with the settings of CTKD and SimKD."""
    return Distilled(R50_MBV1, KDLoss(), CTKD)


@recipe(published=KDLoss.published_with["mdistiller's weights"])
def kd_mdistiller_r34_r18() -> Distilled:
    """ResNet-34 teaches ResNet-18 by its logits: KD with the settings of mdistiller.

    At temperature 1 a store of top-k rows serves. torchdistill trains the same loss at batch 768 (--lr 0.3).
    """
    return Distilled(R34_R18, KDLoss(ce=0.5, kd=0.5, temperature=1.0), MDISTILLER)


@recipe(published=KDLoss.published_with["mdistiller's weights"])
def kd_mdistiller_r50_mbv1() -> Distilled:
    """ResNet-50 teaches MobileNetV1 by its logits: KD with the settings of mdistiller."""
    return Distilled(R50_MBV1, KDLoss(ce=0.5, kd=0.5, temperature=1.0), MDISTILLER)


@recipe(published=KDLoss.published_with["RepDistiller's weights"])
def kd_repdistiller_r34_r18() -> Distilled:
    """ResNet-34 teaches ResNet-18 by its logits: KD as RepDistiller's author trains it, in its issue 10."""
    return Distilled(R34_R18, KDLoss(ce=0.5, kd=0.9), REPDISTILLER)


@recipe(published=DKDLoss.published)
def dkd_r34_r18() -> Distilled:
    """Decoupled KD of ResNet-34 to ResNet-18, as in mdistiller."""
    return Distilled(R34_R18, DKDLoss(), MDISTILLER)


@recipe(published=DKDLoss.published)
def dkd_r50_mbv1() -> Distilled:
    """Decoupled KD of ResNet-50 to MobileNetV1, as in mdistiller."""
    return Distilled(R50_MBV1, DKDLoss(beta=2.0), MDISTILLER)


@recipe(published=DISTLoss.published)
def dist_r34_r18() -> Distilled:
    """DIST, correlations of probabilities, of ResNet-34 to ResNet-18, as its authors train it.

    Part of it is the training: Nesterov's momentum, no decay of BatchNorm and biases; 256 = 8 micro-batches of 32,
    over which classes are correlated. More than 8 ranks cut it finer.
    """
    return Distilled(R34_R18, DISTLoss(), DIST)


@recipe(published=DISTLoss.published)
def dist_r50_mbv1() -> Distilled:
    """DIST, correlations of probabilities, of ResNet-50 to MobileNetV1, as its authors train it; see dist_r34_r18."""
    return Distilled(R50_MBV1, DISTLoss(), DIST)


@recipe(published=NKDLoss.published)
def nkd_r34_r18() -> Distilled:
    """Normalised KD of ResNet-34 to ResNet-18, as in cls_KD."""
    return Distilled(R34_R18, NKDLoss(), CLS_KD)


@recipe(published=NKDLoss.published)
def nkd_r50_mbv1() -> Distilled:
    """Normalised KD of ResNet-50 to MobileNetV1, as in cls_KD, which clips its gradient."""
    return Distilled(R50_MBV1, NKDLoss(), CLS_KD_MBV1)


@recipe(published=LSKDLoss.published)
def lskd_r34_r18() -> Distilled:
    """KD of standardised logits, ResNet-34 to ResNet-18, as its authors train it on mdistiller."""
    return Distilled(R34_R18, LSKDLoss.around("kd"), MDISTILLER)


@recipe(published=LSKDLoss.published)
def lskd_r50_mbv1() -> Distilled:
    """KD of standardised logits, ResNet-50 to MobileNetV1, as its authors train it on mdistiller."""
    return Distilled(R50_MBV1, LSKDLoss.around("kd"), MDISTILLER)


@recipe()
def lskd_dkd_r34_r18() -> Distilled:
    """Decoupled KD of standardised logits, ResNet-34 to ResNet-18: nine times mdistiller's weights, at T = 2.

    Its authors name these weights in their issue 31.
    """
    return Distilled(R34_R18, LSKDLoss.around("dkd"), MDISTILLER)
