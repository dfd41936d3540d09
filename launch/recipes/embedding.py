"""Distillation by pooled embeddings on ImageNet; a store of embeddings serves all of it."""

from launch.recipes._shared.code_bases import CTKD, CTKD_IN_32S, REPDISTILLER, SRRL
from launch.recipes._shared.recipe import Distilled, recipe
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses.crd import CRDLoss
from pipeline.losses.pkt import PKTLoss
from pipeline.losses.srrl import SRRLLoss


@recipe(published=PKTLoss.published)
def pkt_r34_r18() -> Distilled:
    """Probabilistic knowledge transfer and KD of ResNet-34 to ResNet-18, as in CTKD.

    The term falls as one over the micro-batch: CTKD's eight GPUs see 32 images each (--max-micro-batch).
    More ranks cut the batch finer: then give --reference-batch 32.
    """
    return Distilled(R34_R18, PKTLoss(kd=1.0), CTKD_IN_32S)


@recipe(published=CRDLoss.published)
def crd_r34_r18() -> Distilled:
    """Contrastive representation distillation of ResNet-34 to ResNet-18, as its author trains it.

    Memory: 1.3 GB for the banks on every rank, and what a micro-batch of B gathers from them, 17 MB times B.
    """
    return Distilled(R34_R18, CRDLoss(), REPDISTILLER)


@recipe(published=CRDLoss.published)
def crd_r50_mbv1() -> Distilled:
    """Contrastive representation distillation of ResNet-50 to MobileNetV1, as its author trains it.

    Memory: as crd_r34_r18.
    """
    return Distilled(R50_MBV1, CRDLoss(), REPDISTILLER)


@recipe(published=CRDLoss.published_with["KD"])
def crd_kd_r34_r18() -> Distilled:
    """Contrastive representation distillation and KD of ResNet-34 to ResNet-18.

    Memory: as crd_r34_r18.
    """
    return Distilled(R34_R18, CRDLoss(kd=1.0), REPDISTILLER)


@recipe(published=SRRLLoss.published)
def srrl_r34_r18() -> Distilled:
    """Softmax regression of ResNet-34's classifier on ResNet-18's features, as its authors train it."""
    return Distilled(R34_R18, SRRLLoss(), SRRL)


@recipe(published=SRRLLoss.published)
def srrl_r50_mbv1() -> Distilled:
    """Softmax regression of ResNet-50's classifier on MobileNetV1's features, as its authors train it."""
    return Distilled(R50_MBV1, SRRLLoss(), SRRL)


@recipe(published=SRRLLoss.published_with["the pooled form and KD"])
def srrl_ctkd_r34_r18() -> Distilled:
    """Softmax regression of ResNet-34's classifier on ResNet-18's pooled features, and KD, as in CTKD."""
    return Distilled(R34_R18, SRRLLoss(kd=1.0, form="pooled"), CTKD)
