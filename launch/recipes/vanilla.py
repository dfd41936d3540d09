"""Plain supervised training on ImageNet: baselines of students, and teachers.

The figures of ResNets are those of torchvision's weights IMAGENET1K_V1, which its references/classification trained so.
"""

from launch.recipes.code_bases import REPDISTILLER, TORCHVISION
from launch.recipes.losses import LabelWeight, Student, supervised
from pipeline.config import Files, RunConfig, Settings


def vanilla_r18(
    files: Files, student: Student = "resnet18", ce: LabelWeight = 1.0, settings: Settings = TORCHVISION
) -> RunConfig:
    """ResNet-18 from labels alone: the baseline that a distilled ResNet-18 is compared with.

    torchrun --nproc_per_node=8 launch/imagenet.py vanilla_r18 --data DIR --out runs/vanilla_r18

    Published: 69.75 (torchvision).
    Cost: 90 epochs of ResNet-18.
    """
    return supervised("vanilla_r18", files, student, ce, settings)


def vanilla_r34(
    files: Files, student: Student = "resnet34", ce: LabelWeight = 1.0, settings: Settings = TORCHVISION
) -> RunConfig:
    """ResNet-34 from labels alone: the teacher of most recipes.

    torchrun --nproc_per_node=8 launch/imagenet.py vanilla_r34 --data DIR --out runs/vanilla_r34

    Published: 73.31 (torchvision).
    Cost: 90 epochs of ResNet-34, twice ResNet-18's arithmetic.
    """
    return supervised("vanilla_r34", files, student, ce, settings)


def vanilla_r50(
    files: Files, student: Student = "resnet50", ce: LabelWeight = 1.0, settings: Settings = TORCHVISION
) -> RunConfig:
    """ResNet-50 from labels alone: the teacher of MobileNetV1, and of SimKD.

    torchrun --nproc_per_node=8 launch/imagenet.py vanilla_r50 --data DIR --out runs/vanilla_r50

    Published: 76.16 (torchvision's weights, as distillation papers measure them).
    Cost: 90 epochs of ResNet-50, 2.3 times ResNet-18's arithmetic.
    """
    return supervised("vanilla_r50", files, student, ce, settings)


def vanilla_mbv1(
    files: Files, student: Student = "mobilenet_v1", ce: LabelWeight = 1.0, settings: Settings = REPDISTILLER
) -> RunConfig:
    """MobileNetV1 from labels alone: the baseline that a distilled MobileNetV1 is compared with.

    torchrun --nproc_per_node=8 launch/imagenet.py vanilla_mbv1 --data DIR --out runs/vanilla_mbv1

    Published: 68.87, 69.63 and 70.13, by paper: compare with the one measured here.
    Cost: 100 epochs of MobileNetV1.
    """
    return supervised("vanilla_mbv1", files, student, ce, settings)
