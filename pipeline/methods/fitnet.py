"""FitNet's hint, trained jointly with the labels as public code does."""

from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu

from pipeline.core.errors import ConfigError
from pipeline.losses.fitnet import FitNetLoss, Variant
from pipeline.methods._shared.connectors import seeded, shapes_of
from pipeline.methods._shared.method import Method, MethodInput, Setting
from pipeline.methods._shared.pooling import pool_larger
from pipeline.methods._shared.precision import as_computed, in_float32


class FitNet(Method[FitNetLoss]):
    """Mean squared error between a regression of one student map, and the teacher's.

    The regression is ReLU(BN(convolution)); a strided, transposed or unpadded convolution brings the map to the
    teacher's size.
    """

    def build(self, setting: Setting) -> None:
        """Make the regression for the two maps' shapes."""
        (student,) = shapes_of((self.loss.stage,), setting.student_maps, whose="student")
        (teacher,) = shapes_of((self.loss.stage,), setting.teacher_maps, whose="teacher")
        with seeded(setting.seed, "fitnet"):
            self.regressor = Regressor(student, teacher, variant=self.loss.variant)

    def forward(self, batch: MethodInput) -> Tensor:
        """The mean over all elements."""
        features = batch.student.features[self.loss.stage]
        with as_computed(features):
            regressed = self.regressor(features)
        # the regression's map is as large as the teacher's, or smaller where "simkd" pools
        return mse_loss(*pool_larger(in_float32(regressed), in_float32(batch.taught.features[self.loss.stage])))


class Regressor(nn.Module):
    """ReLU(BN(conv)) from a student's (C, H, W) to the teacher's."""

    def __init__(self, student: tuple[int, int, int], teacher: tuple[int, int, int], *, variant: Variant) -> None:
        super().__init__()
        self.conv = _fitting_convolution(student, teacher, variant)
        self.bn = nn.BatchNorm2d(teacher[0])

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) of the student -> about the teacher's shape."""
        return relu(self.bn(self.conv(features)))


def _fitting_convolution(student: tuple[int, int, int], teacher: tuple[int, int, int], variant: Variant) -> nn.Module:
    channels, height, _ = student
    width, target, _ = teacher
    if height == 2 * target:
        return nn.Conv2d(channels, width, 3, stride=2, padding=1)
    if 2 * height == target:
        return nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1)
    if height >= target:
        return nn.Conv2d(channels, width, 1 + height - target)
    if variant == "simkd":
        return nn.Conv2d(channels, width, 3, padding=1)
    raise ConfigError(
        "FitNet as in RepDistiller needs a student's map that is larger than the teacher's, equal or just half:\n"
        f"  student: {student}\n  teacher: {teacher}\n"
        "Choose another --method-stage, or --variant simkd."
    )
