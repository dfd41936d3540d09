"""Knowledge distillation by logits on ImageNet.

Settings of SimKD and CTKD: total batch 256, learning rate 0.1, 120 epochs, steps at 30, 60 and 90, weight decay 1e-4 on
everything, cross-entropy and KL (T = 4) both with weight 1.
"""

from launch.recipes.losses import KDLoss, distilled
from pipeline.core.config import Files, Optimisation, RunConfig, Settings

_TRAINING = Settings(optimisation=Optimisation(epochs=120, batch=256, lr=0.1, milestones=(30, 60, 90)))


def kd_r34_r18(
    files: Files,
    student: str = "resnet18",
    teacher: str = "resnet34@IMAGENET1K_V1",
    loss: KDLoss = KDLoss(),
    settings: Settings = _TRAINING,
) -> RunConfig:
    """ResNet-34 teaches ResNet-18 by its logits, online.

    torchrun --nproc_per_node=8 launch/imagenet.py kd_r34_r18 --data /data/imagenet --out runs/kd_r34_r18

    Published: teacher 73.31; student from labels 69.75; distilled 70.66 to 71.37, by code base (CRD and torchdistill).
    Cost: 120 epochs of ResNet-18 forward and backward with a ResNet-34 forward: about twice a plain run.

    Args:
        files: where the run reads and writes.
        student: model that learns, as NAME[@WEIGHTS].
        teacher: model that teaches, as NAME@WEIGHTS.
        loss: weights of the loss.
        settings: everything else.
    """
    return distilled("kd_r34_r18", files, student, teacher, loss, settings)


def kd_r50_mbv1(
    files: Files,
    student: str = "mobilenet_v1",
    teacher: str = "resnet50@IMAGENET1K_V1",
    loss: KDLoss = KDLoss(),
    settings: Settings = _TRAINING,
) -> RunConfig:
    """ResNet-50 teaches MobileNetV1 by its logits, online.

    torchrun --nproc_per_node=8 launch/imagenet.py kd_r50_mbv1 --data /data/imagenet --out runs/kd_r50_mbv1

    Published: teacher 76.16; student from labels 68.87 to 70.13, by paper; distilled 70.50.
    Cost: 120 epochs of MobileNetV1 with a ResNet-50 forward: about three times a plain run.

    Args:
        files: where the run reads and writes.
        student: model that learns, as NAME[@WEIGHTS].
        teacher: model that teaches, as NAME@WEIGHTS.
        loss: weights of the loss.
        settings: everything else.
    """
    return distilled("kd_r50_mbv1", files, student, teacher, loss, settings)
