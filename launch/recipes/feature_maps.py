"""Distillation by feature maps on ImageNet: the teacher runs online."""

from launch.recipes.code_bases import (
    CTKD,
    CTKD_IN_32S,
    MDISTILLER,
    OFD,
    R34_R18,
    R50_MBV1,
    R50_R18,
    REPDISTILLER,
    REVIEWKD,
    SEMCKD,
    SIMKD,
    Pair,
)
from launch.recipes.feature_losses import (
    ATLoss,
    FitNetLoss,
    OFDLoss,
    ReviewKDLoss,
    SemCKDLoss,
    SimKDLoss,
    SPLoss,
    VIDLoss,
)
from launch.recipes.losses import distilled
from pipeline.config import Files, RunConfig, Settings


def fitnet_r34_r18(
    files: Files, pair: Pair = R34_R18, loss: FitNetLoss = FitNetLoss(), settings: Settings = REPDISTILLER
) -> RunConfig:
    """FitNet's hint, ResNet-34's second stage for ResNet-18, with RepDistiller's weights.

    torchrun --nproc_per_node=8 launch/imagenet.py fitnet_r34_r18 --data DIR --out runs/fitnet_r34_r18

    Published: 70.66 (README of Channel-Distillation), with settings of its own.
    Cost: 100 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    """
    return distilled("fitnet_r34_r18", files, *pair, loss, settings)


def at_r34_r18(
    files: Files, pair: Pair = R34_R18, loss: ATLoss = ATLoss(), settings: Settings = MDISTILLER
) -> RunConfig:
    """Attention transfer of ResNet-34 to ResNet-18, as in mdistiller.

    torchrun --nproc_per_node=8 launch/imagenet.py at_r34_r18 --data DIR --out runs/at_r34_r18

    Published: 70.70 (READMEs), 70.90 (torchdistill).
    Cost: 100 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    """
    return distilled("at_r34_r18", files, *pair, loss, settings)


def at_r50_mbv1(
    files: Files, pair: Pair = R50_MBV1, loss: ATLoss = ATLoss(), settings: Settings = MDISTILLER
) -> RunConfig:
    """Attention transfer of ResNet-50 to MobileNetV1, with mdistiller's settings.

    torchrun --nproc_per_node=8 launch/imagenet.py at_r50_mbv1 --data DIR --out runs/at_r50_mbv1

    Published: 69.56 (unchecked), 70.72 (NORM).
    Cost: 100 epochs, 3.4 times the arithmetic of MobileNetV1 from labels.
    mdistiller's code compares stages of different strides here; ours are aligned.
    """
    return distilled("at_r50_mbv1", files, *pair, loss, settings)


def sp_r34_r18(
    files: Files, pair: Pair = R34_R18, loss: SPLoss = SPLoss(kd=1.0), settings: Settings = CTKD_IN_32S
) -> RunConfig:
    """Similarity-preserving distillation and KD of ResNet-34 to ResNet-18, as in CTKD.

    torchrun --nproc_per_node=8 launch/imagenet.py sp_r34_r18 --data DIR --out runs/sp_r34_r18

    Published: 70.62 (README).
    Cost: 120 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    The term falls as one over the micro-batch: CTKD's eight GPUs see 32 images each (--max-micro-batch).
    More ranks cut the batch finer: then give --reference-batch 32.
    """
    return distilled("sp_r34_r18", files, *pair, loss, settings)


def vid_r34_r18(
    files: Files, pair: Pair = R34_R18, loss: VIDLoss = VIDLoss(kd=1.0), settings: Settings = CTKD
) -> RunConfig:
    """Variational information distillation and KD of ResNet-34 to ResNet-18, as in CTKD.

    torchrun --nproc_per_node=8 launch/imagenet.py vid_r34_r18 --data DIR --out runs/vid_r34_r18

    Published: none.
    Cost: 120 epochs, 1.8 times the arithmetic of ResNet-18 from labels.
    """
    return distilled("vid_r34_r18", files, *pair, loss, settings)


def semckd_r34_r18(
    files: Files, pair: Pair = R34_R18, loss: SemCKDLoss = SemCKDLoss(), settings: Settings = SEMCKD
) -> RunConfig:
    """Semantic calibration and KD of ResNet-34 to ResNet-18, as its authors train it, on DALI's random crops.

    torchrun --nproc_per_node=8 launch/imagenet.py semckd_r34_r18 --data DIR --out runs/semckd_r34_r18

    Published: 70.87 (README).
    Cost: 90 epochs, 4.8 times the arithmetic of ResNet-18 from labels.
    54.8 M parameters beside the student's, for micro-batches of 32, its authors' on eight GPUs (--max-micro-batch).
    """
    return distilled("semckd_r34_r18", files, *pair, loss, settings)


def reviewkd_r34_r18(
    files: Files, pair: Pair = R34_R18, loss: ReviewKDLoss = ReviewKDLoss(), settings: Settings = REVIEWKD
) -> RunConfig:
    """Knowledge review of ResNet-34 for ResNet-18, as its authors train it.

    torchrun --nproc_per_node=8 launch/imagenet.py reviewkd_r34_r18 --data DIR --out runs/reviewkd_r34_r18

    Published: 71.61 (README), 71.64 (torchdistill).
    Cost: 100 epochs, 2.8 times the arithmetic of ResNet-18 from labels.
    """
    return distilled("reviewkd_r34_r18", files, *pair, loss, settings)


def reviewkd_r50_mbv1(
    files: Files,
    pair: Pair = R50_MBV1,
    loss: ReviewKDLoss = ReviewKDLoss(weight=8.0, student_maps="pre", mid_channels=256),
    settings: Settings = REVIEWKD,
) -> RunConfig:
    """Knowledge review of ResNet-50 for MobileNetV1, as its authors train it.

    torchrun --nproc_per_node=8 launch/imagenet.py reviewkd_r50_mbv1 --data DIR --out runs/reviewkd_r50_mbv1

    Published: 72.56 (README).
    Cost: 100 epochs, 9.8 times the arithmetic of MobileNetV1 from labels.
    """
    return distilled("reviewkd_r50_mbv1", files, *pair, loss, settings)


def ofd_r34_r18(
    files: Files, pair: Pair = R34_R18, loss: OFDLoss = OFDLoss(teacher_mode="train"), settings: Settings = OFD
) -> RunConfig:
    """Overhaul of feature distillation (margin ReLU), ResNet-34 to ResNet-18, with its authors' settings.

    torchrun --nproc_per_node=8 launch/imagenet.py ofd_r34_r18 --data DIR --out runs/ofd_r34_r18

    Published: 70.81 (unchecked), 71.08 (README of NORM), not by its authors, who train ResNet-50 to MobileNet and
    ResNet-152 to ResNet-50.
    Cost: 100 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    """
    return distilled("ofd_r34_r18", files, *pair, loss, settings)


def ofd_r50_mbv1(
    files: Files, pair: Pair = R50_MBV1, loss: OFDLoss = OFDLoss(teacher_mode="train"), settings: Settings = OFD
) -> RunConfig:
    """Overhaul of feature distillation (margin ReLU), ResNet-50 to MobileNetV1, as its authors train it.

    torchrun --nproc_per_node=8 launch/imagenet.py ofd_r50_mbv1 --data DIR --out runs/ofd_r50_mbv1

    Published: 71.25 (README), of the best epoch.
    Cost: 100 epochs, 4.1 times the arithmetic of MobileNetV1 from labels.
    """
    return distilled("ofd_r50_mbv1", files, *pair, loss, settings)


def simkd_r50_r18(
    files: Files, pair: Pair = R50_R18, loss: SimKDLoss = SimKDLoss(), settings: Settings = SIMKD
) -> RunConfig:
    """SimKD: ResNet-18 learns ResNet-50's last map and takes its classifier, on DALI's random crops.

    torchrun --nproc_per_node=8 launch/imagenet.py simkd_r50_r18 --data DIR --out runs/simkd_r50_r18

    Published: 71.66 (author, in its issue 5), 71.59 (unchecked).
    Cost: 120 epochs, 2.1 times the arithmetic of ResNet-18 from labels.
    What is evaluated and saved is ResNet-18, the projector and the teacher's classifier.
    """
    return distilled("simkd_r50_r18", files, *pair, loss, settings)


def simkd_r50_mbv1(
    files: Files, pair: Pair = R50_MBV1, loss: SimKDLoss = SimKDLoss(), settings: Settings = SIMKD
) -> RunConfig:
    """SimKD: MobileNetV1 learns ResNet-50's last map and takes its classifier, on DALI's random crops.

    torchrun --nproc_per_node=8 launch/imagenet.py simkd_r50_mbv1 --data DIR --out runs/simkd_r50_mbv1

    Published: 72.25 (unchecked).
    Cost: 120 epochs, 4.5 times the arithmetic of MobileNetV1 from labels.
    What is evaluated and saved is MobileNetV1, the projector and the teacher's classifier.
    """
    return distilled("simkd_r50_mbv1", files, *pair, loss, settings)
