"""MobileNetV1 (Howard et al., 2017, arXiv 1704.04861), which torchvision does not have.

Layers and state_dict keys are those of the ImageNet distillation code of CRD and ReviewKD, so that its checkpoints
load: `model.0` is the stem, `model.1..13` are the depthwise separable blocks, `fc` is the classifier. 4.23 M parameters
for 1000 classes.
"""

from torch import Tensor, nn

from pipeline.models.stages import rectified
from pipeline.models.taps import TapPoint

_STEM = 32
# (output channels, stride) of the depthwise separable blocks
_BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1)),
)
# the last block at strides 4, 8, 16 and 32, and in it the ReLU after the pointwise convolution
_STAGE_ENDS = ("model.3.5", "model.5.5", "model.11.5", "model.13.5")


class MobileNetV1(nn.Module):
    """Width 1.0; (B, 3, H, W) -> (B, num_classes)."""

    def __init__(self, *, num_classes: int = 1000) -> None:
        super().__init__()
        layers = [nn.Sequential(*_rectified(3, _STEM, 3, stride=2))]
        channels = _STEM
        for width, stride in _BLOCKS:
            depthwise = _rectified(channels, channels, 3, stride=stride, groups=channels)
            layers.append(nn.Sequential(*depthwise, *_rectified(channels, width, 1)))
            channels = width
        self.model = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of normalised images; the side is best a multiple of 32."""
        return self.fc(self.avgpool(self.model(images)).flatten(1))

    def tap_points(self) -> dict[str, TapPoint]:
        """Stages at strides 4, 8, 16 and 32."""
        return rectified(_STAGE_ENDS)


def mobilenet_v1(*, num_classes: int) -> nn.Module:
    """MobileNetV1 with torch's default initialisation, as the reference has it."""
    return MobileNetV1(num_classes=num_classes)


NETWORKS = (mobilenet_v1,)


def _rectified(
    channels: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> tuple[nn.Module, nn.Module, nn.Module]:
    convolution = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)
