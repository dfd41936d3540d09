"""Plain supervised training on ImageNet: baselines of students, and teachers.

The figures of ResNets are those of torchvision's weights IMAGENET1K_V1, which its references/classification trained so.
"""

from launch.recipes._shared.code_bases import REPDISTILLER, TORCHVISION
from launch.recipes._shared.recipe import Supervised, recipe
from pipeline.losses._shared.pairs import R50_MBV1
from pipeline.losses.supervised import SupervisedLoss


@recipe(published="69.75 (torchvision)")
def vanilla_r18() -> Supervised:
    """ResNet-18 from labels alone: the baseline that a distilled ResNet-18 is compared with."""
    return Supervised("resnet18", TORCHVISION)


@recipe(published="73.31 (torchvision)")
def vanilla_r34() -> Supervised:
    """ResNet-34 from labels alone: the teacher of most recipes."""
    return Supervised("resnet34", TORCHVISION)


@recipe(published="76.16 (torchvision's weights, as distillation papers measure them)")
def vanilla_r50() -> Supervised:
    """ResNet-50 from labels alone: the teacher of MobileNetV1, and of SimKD."""
    return Supervised("resnet50", TORCHVISION)


@recipe(published=SupervisedLoss.published[R50_MBV1])
def vanilla_mbv1() -> Supervised:
    """MobileNetV1 from labels alone: the baseline that a distilled MobileNetV1 is compared with.

    Papers differ by 1.3 points: compare with the one measured here.
    """
    return Supervised("mobilenet_v1", REPDISTILLER)
