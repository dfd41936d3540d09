"""Plain supervised training on ImageNet: baselines of students, and teachers."""

from launch.recipes.losses import supervised
from pipeline.core.config import Files, Optimisation, RunConfig, Settings

_TRAINING = Settings(optimisation=Optimisation(epochs=90, batch=256, lr=0.1, milestones=(30, 60)))


def vanilla_r18(
    files: Files,
    student: str = "resnet18",
    ce: float = 1.0,
    settings: Settings = _TRAINING,
) -> RunConfig:
    """ResNet-18 learns from labels alone: the baseline that a distilled ResNet-18 is compared with.

    torchrun --nproc_per_node=8 launch/imagenet.py vanilla_r18 --data /data/imagenet --out runs/vanilla_r18

    Published: 69.75 (torchvision's weights; 90 epochs, batch 256, lr 0.1, steps at 30 and 60).
    Cost: 90 epochs of ResNet-18.

    Args:
        files: where the run reads and writes.
        student: model that learns, as NAME[@WEIGHTS].
        ce: weight of the cross-entropy with the labels.
        settings: everything else.
    """
    return supervised("vanilla_r18", files, student, ce, settings)
