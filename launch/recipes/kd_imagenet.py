"""Distillation by logits on ImageNet.

Where teacher and student run in one job, most of the cost is the teacher; stored logits or embeddings
(`python -m precompute`, --store) bring each of these runs near to plain training.
"""

from launch.recipes.code_bases import CLS_KD, CLS_KD_MBV1, CTKD, DIST, MDISTILLER, R34_R18, R50_MBV1, Pair
from launch.recipes.losses import DISTLoss, DKDLoss, KDLoss, KLLoss, LSKDLoss, NKDLoss, distilled
from pipeline.config import Files, RunConfig, Settings


def kd_r34_r18(files: Files, pair: Pair = R34_R18, loss: KDLoss = KDLoss(), settings: Settings = CTKD) -> RunConfig:
    """ResNet-34 teaches ResNet-18 by its logits: KD with the settings of CTKD and SimKD.

    torchrun --nproc_per_node=8 launch/imagenet.py kd_r34_r18 --data DIR --out runs/kd_r34_r18

    Published: 70.83 (CTKD's README), 70.27 and 70.48 (reproduced, in its issue 7). With other settings: 71.03
    (mdistiller's README: ce 0.5, kd 0.5, T = 1, batch 512, 100 epochs), 71.37 (torchdistill: the same loss, batch 768,
    100 epochs), 70.66 (CRD's baseline in READMEs; by its author ce 0.5, kd 0.9, 100 epochs).
    Cost: 120 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    CTKD's teacher is a checkpoint of its own, 73.96 by its README; here it is torchvision's, 73.31.
    mdistiller: --ce 0.5 --kd 0.5 --temperature 1 --batch 512 --lr 0.2 --epochs 100.
    """
    return distilled("kd_r34_r18", files, *pair, loss, settings)


def kd_r50_mbv1(files: Files, pair: Pair = R50_MBV1, loss: KDLoss = KDLoss(), settings: Settings = CTKD) -> RunConfig:
    """ResNet-50 teaches MobileNetV1 by its logits: KD with the settings of CTKD and SimKD.

    torchrun --nproc_per_node=8 launch/imagenet.py kd_r50_mbv1 --data DIR --out runs/kd_r50_mbv1

    Published: none with these settings. With others: 70.50 (mdistiller's README: ce 0.5, kd 0.5, T = 1, batch 512,
    100 epochs), 68.58 (unchecked).
    Cost: 120 epochs, 3.4 times the arithmetic of MobileNetV1 from labels.
    """
    return distilled("kd_r50_mbv1", files, *pair, loss, settings)


def dkd_r34_r18(
    files: Files, pair: Pair = R34_R18, loss: DKDLoss = DKDLoss(), settings: Settings = MDISTILLER
) -> RunConfig:
    """Decoupled KD of ResNet-34 to ResNet-18, as in mdistiller.

    torchrun --nproc_per_node=8 launch/imagenet.py dkd_r34_r18 --data DIR --out runs/dkd_r34_r18

    Published: 71.70 (README).
    Cost: 100 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    """
    return distilled("dkd_r34_r18", files, *pair, loss, settings)


def dkd_r50_mbv1(
    files: Files, pair: Pair = R50_MBV1, loss: DKDLoss = DKDLoss(beta=2.0), settings: Settings = MDISTILLER
) -> RunConfig:
    """Decoupled KD of ResNet-50 to MobileNetV1, as in mdistiller.

    torchrun --nproc_per_node=8 launch/imagenet.py dkd_r50_mbv1 --data DIR --out runs/dkd_r50_mbv1

    Published: 72.05 (README).
    Cost: 100 epochs, 3.4 times the arithmetic of MobileNetV1 from labels.
    """
    return distilled("dkd_r50_mbv1", files, *pair, loss, settings)


def dist_r34_r18(
    files: Files, pair: Pair = R34_R18, loss: DISTLoss = DISTLoss(), settings: Settings = DIST
) -> RunConfig:
    """DIST, correlations of probabilities, of ResNet-34 to ResNet-18, as its authors train it.

    torchrun --nproc_per_node=8 launch/imagenet.py dist_r34_r18 --data DIR --out runs/dist_r34_r18

    Published: 72.07 (README), 71.95 (reproduced).
    Cost: 100 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    Part of it is the training: Nesterov's momentum, no decay of BatchNorm and biases; 256 = 8 micro-batches of 32,
    over which classes are correlated. More than 8 ranks cut it finer.
    """
    return distilled("dist_r34_r18", files, *pair, loss, settings)


def dist_r50_mbv1(
    files: Files, pair: Pair = R50_MBV1, loss: DISTLoss = DISTLoss(), settings: Settings = DIST
) -> RunConfig:
    """DIST, correlations of probabilities, of ResNet-50 to MobileNetV1, as its authors train it.

    torchrun --nproc_per_node=8 launch/imagenet.py dist_r50_mbv1 --data DIR --out runs/dist_r50_mbv1

    Published: 73.24 (README).
    Cost: 100 epochs, 3.4 times the arithmetic of MobileNetV1 from labels.
    Part of it is the training: Nesterov's momentum, no decay of BatchNorm and biases; 256 = 8 micro-batches of 32,
    over which classes are correlated. More than 8 ranks cut it finer.
    """
    return distilled("dist_r50_mbv1", files, *pair, loss, settings)


def nkd_r34_r18(
    files: Files, pair: Pair = R34_R18, loss: NKDLoss = NKDLoss(), settings: Settings = CLS_KD
) -> RunConfig:
    """Normalised KD of ResNet-34 to ResNet-18, as in cls_KD.

    torchrun --nproc_per_node=8 launch/imagenet.py nkd_r34_r18 --data DIR --out runs/nkd_r34_r18

    Published: 71.96 (README).
    Cost: 100 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    """
    return distilled("nkd_r34_r18", files, *pair, loss, settings)


def nkd_r50_mbv1(
    files: Files, pair: Pair = R50_MBV1, loss: NKDLoss = NKDLoss(), settings: Settings = CLS_KD_MBV1
) -> RunConfig:
    """Normalised KD of ResNet-50 to MobileNetV1, as in cls_KD, which clips its gradient.

    torchrun --nproc_per_node=8 launch/imagenet.py nkd_r50_mbv1 --data DIR --out runs/nkd_r50_mbv1

    Published: 72.58 (README).
    Cost: 100 epochs, 3.4 times the arithmetic of MobileNetV1 from labels.
    """
    return distilled("nkd_r50_mbv1", files, *pair, loss, settings)


def lskd_r34_r18(
    files: Files, pair: Pair = R34_R18, base: KLLoss = KLLoss(kd=9.0, temperature=2.0), settings: Settings = MDISTILLER
) -> RunConfig:
    """KD of standardised logits, ResNet-34 to ResNet-18, as its authors train it on mdistiller.

    torchrun --nproc_per_node=8 launch/imagenet.py lskd_r34_r18 --data DIR --out runs/lskd_r34_r18

    Published: 71.42 (README), 71.23 and 71.39 (reproduced).
    Cost: 100 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    """
    return distilled("lskd_r34_r18", files, *pair, LSKDLoss(), settings, base=base)


def lskd_r50_mbv1(
    files: Files, pair: Pair = R50_MBV1, base: KLLoss = KLLoss(kd=9.0, temperature=2.0), settings: Settings = MDISTILLER
) -> RunConfig:
    """KD of standardised logits, ResNet-50 to MobileNetV1, as its authors train it on mdistiller.

    torchrun --nproc_per_node=8 launch/imagenet.py lskd_r50_mbv1 --data DIR --out runs/lskd_r50_mbv1

    Published: 72.18 (unchecked).
    Cost: 100 epochs, 3.4 times the arithmetic of MobileNetV1 from labels.
    """
    return distilled("lskd_r50_mbv1", files, *pair, LSKDLoss(), settings, base=base)


def lskd_dkd_r34_r18(
    files: Files,
    pair: Pair = R34_R18,
    base: DKDLoss = DKDLoss(temperature=2.0, alpha=9.0, beta=4.5),
    settings: Settings = MDISTILLER,
) -> RunConfig:
    """Decoupled KD of standardised logits, ResNet-34 to ResNet-18: nine times mdistiller's weights, at T = 2.

    torchrun --nproc_per_node=8 launch/imagenet.py lskd_dkd_r34_r18 --data DIR --out runs/lskd_dkd_r34_r18

    Published: none that was looked up; its authors name these weights in their issue 31.
    Cost: 100 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    """
    return distilled("lskd_dkd_r34_r18", files, *pair, LSKDLoss(), settings, base=base)
