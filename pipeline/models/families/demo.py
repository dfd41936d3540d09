"""Two small residual networks for 64-pixel images: a teacher and a student that train on two CPU cores in minutes."""

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.models.stages import rectified
from pipeline.models.taps import TapPoint

_TEACHER_STEM, _TEACHER_WIDTHS = 16, (32, 64, 96, 128)
_STUDENT_STEM, _STUDENT_WIDTHS = 8, (8, 12, 20, 32)


def demo_teacher(*, num_classes: int) -> nn.Module:
    """0.49 M parameters."""
    return DemoResNet(_TEACHER_STEM, _TEACHER_WIDTHS, num_classes=num_classes)


def demo_student(*, num_classes: int) -> nn.Module:
    """26 thousand parameters."""
    return DemoResNet(_STUDENT_STEM, _STUDENT_WIDTHS, num_classes=num_classes)


NETWORKS = (demo_teacher, demo_student)


class DemoResNet(nn.Module):
    """A stem at stride 2 and one basic residual block per stage, at strides 4, 8, 16 and 32.

    Args:
        stem: channels of the stem.
        widths: channels of the stages.
        num_classes: outputs of the classifier.
    """

    def __init__(self, stem: int, widths: Sequence[int], *, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_normed(3, stem, kernel=3, stride=2), nn.ReLU(inplace=True))
        inputs = (stem, *widths[:-1])
        self.stages = nn.Sequential(*(DemoBlock(i, o) for i, o in zip(inputs, widths, strict=True)))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of normalised images."""
        return self.fc(self.avgpool(self.stages(self.stem(images))).flatten(1))

    def tap_points(self) -> dict[str, TapPoint]:
        """Stages at strides 4, 8, 16 and 32."""
        return rectified(f"stages.{number}.relu" for number in range(len(self.stages)))


class DemoBlock(nn.Module):
    """Two 3x3 convolutions around a projected shortcut; halves the resolution."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_normed(channels, width, kernel=3, stride=2),
            nn.ReLU(inplace=True),
            *_normed(width, width, kernel=3, stride=1),
        )
        self.shortcut = nn.Sequential(*_normed(channels, width, kernel=1, stride=2))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, width, H / 2, W / 2)."""
        return self.relu(self.residual(features) + self.shortcut(features))


def _normed(channels: int, width: int, *, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(width)
