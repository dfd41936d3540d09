"""Distillation by pooled embeddings on ImageNet; a store of embeddings serves all of it."""

from launch.recipes.code_bases import CTKD_IN_32S, R34_R18, R50_MBV1, REPDISTILLER, SRRL, Pair
from launch.recipes.feature_losses import CRDLoss, PKTLoss, SRRLLoss
from launch.recipes.losses import distilled
from pipeline.config import Files, RunConfig, Settings


def pkt_r34_r18(
    files: Files, pair: Pair = R34_R18, loss: PKTLoss = PKTLoss(kd=1.0), settings: Settings = CTKD_IN_32S
) -> RunConfig:
    """Probabilistic knowledge transfer and KD of ResNet-34 to ResNet-18, as in CTKD.

    torchrun --nproc_per_node=8 launch/imagenet.py pkt_r34_r18 --data DIR --out runs/pkt_r34_r18

    Published: 70.92 (CTKD's paper, unchecked).
    Cost: 120 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    The term falls as one over the micro-batch: CTKD's eight GPUs see 32 images each (--max-micro-batch).
    More ranks cut the batch finer: then give --reference-batch 32.
    """
    return distilled("pkt_r34_r18", files, *pair, loss, settings)


def crd_r34_r18(
    files: Files, pair: Pair = R34_R18, loss: CRDLoss = CRDLoss(), settings: Settings = REPDISTILLER
) -> RunConfig:
    """Contrastive representation distillation of ResNet-34 to ResNet-18, as its author trains it.

    torchrun --nproc_per_node=8 launch/imagenet.py crd_r34_r18 --data DIR --out runs/crd_r34_r18

    Published: 71.17 (README), 70.93 and 70.43 (reproduced).
    Cost: 100 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    Memory: 1.3 GB for the banks on every rank, and what a micro-batch of B gathers from them, 17 MB times B.
    """
    return distilled("crd_r34_r18", files, *pair, loss, settings)


def crd_r50_mbv1(
    files: Files, pair: Pair = R50_MBV1, loss: CRDLoss = CRDLoss(), settings: Settings = REPDISTILLER
) -> RunConfig:
    """Contrastive representation distillation of ResNet-50 to MobileNetV1, as its author trains it.

    torchrun --nproc_per_node=8 launch/imagenet.py crd_r50_mbv1 --data DIR --out runs/crd_r50_mbv1

    Published: 71.37 (README).
    Cost: 100 epochs, 3.4 times the arithmetic of MobileNetV1 from labels.
    Memory: as crd_r34_r18.
    """
    return distilled("crd_r50_mbv1", files, *pair, loss, settings)


def crd_kd_r34_r18(
    files: Files, pair: Pair = R34_R18, loss: CRDLoss = CRDLoss(kd=1.0), settings: Settings = REPDISTILLER
) -> RunConfig:
    """Contrastive representation distillation and KD of ResNet-34 to ResNet-18.

    torchrun --nproc_per_node=8 launch/imagenet.py crd_kd_r34_r18 --data DIR --out runs/crd_kd_r34_r18

    Published: 71.38 (unchecked).
    Cost: 100 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    Memory: as crd_r34_r18.
    """
    return distilled("crd_kd_r34_r18", files, *pair, loss, settings)


def srrl_r34_r18(
    files: Files, pair: Pair = R34_R18, loss: SRRLLoss = SRRLLoss(), settings: Settings = SRRL
) -> RunConfig:
    """Softmax regression of ResNet-34's classifier on ResNet-18's features, as its authors train it.

    torchrun --nproc_per_node=8 launch/imagenet.py srrl_r34_r18 --data DIR --out runs/srrl_r34_r18

    Published: 71.73 (README).
    Cost: 100 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    """
    return distilled("srrl_r34_r18", files, *pair, loss, settings)


def srrl_r50_mbv1(
    files: Files, pair: Pair = R50_MBV1, loss: SRRLLoss = SRRLLoss(), settings: Settings = SRRL
) -> RunConfig:
    """Softmax regression of ResNet-50's classifier on MobileNetV1's features, as its authors train it.

    torchrun --nproc_per_node=8 launch/imagenet.py srrl_r50_mbv1 --data DIR --out runs/srrl_r50_mbv1

    Published: 72.49 (README).
    Cost: 100 epochs, 3.6 times the arithmetic of MobileNetV1 from labels.
    """
    return distilled("srrl_r50_mbv1", files, *pair, loss, settings)
