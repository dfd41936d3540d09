"""FitNet's hint (Romero et al. 2015, arXiv:1412.6550), trained jointly with the labels as public code does."""

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu

from pipeline.core.errors import ConfigError
from pipeline.methods.base import R34_R18, Method, MethodInfo, MethodInput, Needs, Setting, Weights
from pipeline.methods.parts import as_computed, in_float32, pool_larger, seeded, shapes_of

INFO = MethodInfo(
    paper="Romero et al. 2015, arXiv:1412.6550", published={R34_R18: "70.66 (README of Channel-Distillation)"}
)

PRESETS: dict[str, dict[str, Any]] = {
    "repdistiller": {"ce": 1.0, "kd": 0.0, "weight": 100.0, "stage": "stage2", "variant": "repdistiller"},
    "mdistiller": {"ce": 1.0, "kd": 0.0, "weight": 100.0, "stage": "stage2", "variant": "repdistiller"},
    "simkd": {"ce": 1.0, "kd": 1.0, "temperature": 4.0, "weight": 100.0, "stage": "stage1"},
    "ctkd": {"ce": 1.0, "kd": 1.0, "temperature": 4.0, "weight": 100.0, "stage": "stage1"},
}

Variant = Literal["repdistiller", "simkd"]


class FitNet(Method):
    """Mean squared error between a regression of one student map, and the teacher's.

    The regression is ReLU(BN(convolution)); a strided, transposed or unpadded convolution brings the map to the
    teacher's size.

    Args:
        ce: weight of the cross-entropy.
        kd: weight of the temperature-scaled divergence; SimKD and CTKD use 1.
        temperature: T of that divergence.
        weight: of this term.
        stage: the tap compared; SimKD's and CTKD's code takes "stage1".
        variant: where the student's map is smaller and not just half the teacher's: "repdistiller" refuses, "simkd"
            pools the teacher's map. Otherwise they are one.
    """

    def __init__(
        self,
        *,
        ce: float = 1.0,
        kd: float = 0.0,
        temperature: float = 4.0,
        weight: float = 100.0,
        stage: str = "stage2",
        variant: Variant = "simkd",
    ) -> None:
        super().__init__()
        self.weights = Weights(ce=ce, kd=kd, temperature=temperature, method=weight)
        self._stage, self._variant = stage, variant

    def build(self, setting: Setting) -> None:
        """Make the regression for the two maps' shapes."""
        (student,) = shapes_of((self._stage,), setting.student_maps, whose="student")
        (teacher,) = shapes_of((self._stage,), setting.teacher_maps, whose="teacher")
        with seeded(setting.seed, "fitnet"):
            self.regressor = Regressor(student, teacher, variant=self._variant)

    @property
    def needs(self) -> Needs:
        """One stage of both networks."""
        return Needs(teacher=frozenset({"logits", self._stage}), student=frozenset({self._stage}))

    def forward(self, batch: MethodInput) -> Tensor:
        """The mean over all elements."""
        features = batch.student.features[self._stage]
        with as_computed(features):
            regressed = self.regressor(features)
        # the regression's map is as large as the teacher's, or smaller where "simkd" pools
        return mse_loss(*pool_larger(in_float32(regressed), in_float32(batch.taught.features[self._stage])))


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


METHOD = FitNet
