"""SemCKD, cross-layer distillation with semantic calibration.

Legend: B batch, S stages of the student, T stages of the teacher, E = B // 4 dimensions of queries and keys.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu, softmax

from pipeline.core.errors import ConfigError
from pipeline.losses.semckd import SemCKDLoss
from pipeline.methods._shared.connectors import convolution, seeded, shapes_of
from pipeline.methods._shared.method import Method, MethodInput, Setting
from pipeline.methods._shared.pooling import pool_larger
from pipeline.methods._shared.precision import as_computed, in_plain_float32

_FACTOR = 4


class SemCKD(Method[SemCKDLoss]):
    """Every pair of a student's and a teacher's stage is regressed; each sample's attention weighs the pairs.

    Attention compares rows of the stages' Gram matrices over the batch, through small networks whose INPUT DIMENSION IS
    THE MICRO-BATCH: the parameters fit one micro-batch size (not one number of ranks), and training refuses another.

    Every stage pair has a regression, so the trainable parts are large: 54.8 M parameters for ResNet-34 -> ResNet-18,
    more than 850 M for a ResNet-50 teacher.
    """

    _micro_batch = 0

    def build(self, setting: Setting) -> None:
        """Make the attention for the micro-batch and the regressions for the stages' channels."""
        student = shapes_of(self.loss.stages, setting.student_maps, whose="student")
        teacher = shapes_of(self.loss.of_teacher, setting.teacher_maps, whose="teacher")
        size = self._micro_batch = setting.micro_batch
        if size < _FACTOR:
            raise ConfigError(
                f"SemCKD needs a micro-batch of {_FACTOR} samples or more, got {size}."
                " Raise --batch or lower --micro-batches."
            )
        with seeded(setting.seed, "semckd"):
            self.queries = nn.ModuleList(Embedding(size) for _ in student)
            self.keys = nn.ModuleList(Embedding(size) for _ in teacher)
            self.regressors = nn.ModuleList(nn.ModuleList(_regressor(s[0], t[0]) for t in teacher) for s in student)

    def forward(self, batch: MethodInput) -> Tensor:
        """Sum over pairs of attention times mean squared error, over B S."""
        self._check(len(batch.labels))
        student = [batch.student.features[stage] for stage in self.loss.stages]
        teacher = [batch.taught.features[stage] for stage in self.loss.of_teacher]
        targets = [in_plain_float32(map_) for map_ in teacher]
        attention_BST = self.attention([in_plain_float32(map_) for map_ in student], targets)
        errors = [self._errors(number, map_, teacher, targets) for number, map_ in enumerate(student)]
        errors_BST = torch.stack([each for row in errors for each in row], dim=1).unflatten(1, (len(student), -1))
        return (attention_BST * errors_BST).sum(dim=2).mean()

    def attention(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        """(B, S, T), sums to 1 over the teacher's stages; from maps in float32."""
        queries_BSE, keys_BTE = _embed(self.queries, student), _embed(self.keys, teacher)
        return softmax(queries_BSE @ keys_BTE.transpose(1, 2) / self.loss.soft, dim=2)

    def _errors(self, number: int, source: Tensor, teacher: list[Tensor], targets: list[Tensor]) -> list[Tensor]:
        """(B,) mean squared errors of the student's stage `number` against each of the teacher's.

        `targets` are the teacher's maps in float32, converted once for all of the student's stages.
        """
        regressors = self.regressors[number]
        assert isinstance(regressors, nn.ModuleList)
        errors = []
        for regressor, map_, target in zip(regressors, teacher, targets, strict=True):
            pooled, goal = pool_larger(source, map_)
            with as_computed(pooled):
                regressed = in_plain_float32(regressor(pooled))
            goal = target if goal is map_ else in_plain_float32(goal)
            errors.append(mse_loss(regressed, goal, reduction="none").flatten(1).mean(dim=1))
        return errors

    def _check(self, size: int) -> None:
        if size != self._micro_batch:
            raise ConfigError(
                "SemCKD's attention is made for one micro-batch size, the input dimension of its small networks.\n"
                f"  made for: {self._micro_batch}\n  found:    {size}\n"
                "Keep --batch / --micro-batches as they were, or begin a new run."
            )


class Embedding(nn.Module):
    """Linear, ReLU, linear: (B, B) rows of a Gram matrix -> (B, B // 4).

    SimKD's code has a second branch here that nothing calls; its parameters get no gradient, so it is left out.
    """

    def __init__(self, micro_batch: int) -> None:
        super().__init__()
        width = micro_batch // _FACTOR
        self.linear1, self.linear2 = nn.Linear(micro_batch, 2 * width), nn.Linear(2 * width, width)

    def forward(self, rows: Tensor) -> Tensor:
        """(B, B) -> (B, B // 4)."""
        return self.linear2(relu(self.linear1(rows)))


def _embed(embeddings: nn.ModuleList, maps: list[Tensor]) -> Tensor:
    """(B, stages, E) of unit norm: the Gram matrix of each stage's maps over the batch, by the stage's own network."""
    rows = [map_.flatten(1) for map_ in maps]
    embedded = torch.stack([embed(each @ each.T) for embed, each in zip(embeddings, rows, strict=True)], dim=1)
    return embedded / embedded.norm(dim=2, keepdim=True)


def _regressor(channels: int, width: int) -> nn.Sequential:
    inner = 2 * width
    return nn.Sequential(
        convolution(channels, inner),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        convolution(inner, inner, 3),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        convolution(inner, width),
    )
