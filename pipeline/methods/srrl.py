"""Softmax regression representation learning (Yang et al. 2021, ICLR): the student's features, read by the teacher's
classifier.

Legend: B batch, D dimensions of the teacher's embedding, C classes.
"""

from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import linear, mse_loss

from pipeline.core.errors import ConfigError
from pipeline.core.ranges import NOT_NEGATIVE
from pipeline.methods.base import R34_R18, R50_MV1, Method, MethodInfo, MethodInput, Needs, Setting, Weights
from pipeline.methods.parts import as_computed, convolution, in_float32, seeded, shapes_of

INFO = MethodInfo(
    paper="Yang et al. 2021, openreview.net/forum?id=ZzwDy_wiWv",
    published={R34_R18: "71.73 (README); pooled 71.01 (CTKD's reproduction, unchecked)", R50_MV1: "72.49 (README)"},
)

PRESETS: dict[str, dict[str, Any]] = {
    "official": {"form": "map", "ce": 1.0, "kd": 0.0, "weight": 1.0, "logit_weight": 1.0},
    "simkd": {"form": "pooled", "ce": 1.0, "kd": 1.0, "temperature": 4.0, "weight": 1.0},
    "ctkd": {"form": "pooled", "ce": 1.0, "kd": 1.0, "temperature": 4.0, "weight": 1.0},
}


class SRRL(Method):
    """MSE(x, teacher's embedding) + logit_weight * MSE(W x + b, teacher's logits), x the student's connected features.

    The connector is a 1 x 1 convolution, BatchNorm and ReLU; W and b are the teacher's classifier, frozen.

    Args:
        ce: weight of the cross-entropy.
        kd: weight of the temperature-scaled divergence.
        temperature: T of that divergence.
        weight: of this term.
        logit_weight: of its second part.
        form: "map", as published, connects the last map and averages then; "pooled", as in SimKD and CTKD, connects the
            embedding, so that BatchNorm sees B numbers a channel. They are different methods.
        stage: the student's map of the first form.
    """

    def __init__(
        self,
        *,
        ce: float = 1.0,
        kd: float = 0.0,
        temperature: float = 4.0,
        weight: float = 1.0,
        logit_weight: float = 1.0,
        form: Literal["map", "pooled"] = "map",
        stage: str = "stage4",
    ) -> None:
        super().__init__()
        NOT_NEGATIVE.check("--logit-weight", logit_weight)
        self.weights = Weights(ce=ce, kd=kd, temperature=temperature, method=weight)
        self._logit_weight, self._form, self._stage = logit_weight, form, stage

    head_weight: torch.Tensor
    head_bias: torch.Tensor

    def build(self, setting: Setting) -> None:
        """Make the connector and keep the teacher's classifier, which is no part of a checkpoint."""
        if setting.head is None:
            raise ConfigError("srrl reads the student's features by the teacher's classifier, and none was found")
        if self._form == "pooled" and setting.micro_batch < 2:
            raise ConfigError(
                "srrl's pooled form normalises the embedding over the micro-batch, which must be 2 or more: got"
                f" {setting.micro_batch}. Raise --batch or lower --micro-batches, or take the form 'map'."
            )
        weight, bias = setting.head
        self.register_buffer("head_weight", weight.clone(), persistent=False)
        self.register_buffer("head_bias", bias.clone(), persistent=False)
        channels = setting.student_dim
        if self._form == "map":
            channels = shapes_of((self._stage,), setting.student_maps, whose="student")[0][0]
        with seeded(setting.seed, "srrl"):
            self.connector = _connector(channels, weight.shape[1], as_published=self._form == "map")

    @property
    def needs(self) -> Needs:
        """The teacher's embedding, logits and classifier; the student's last map for the published form."""
        student = frozenset({self._stage}) if self._form == "map" else frozenset()
        return Needs(teacher=frozenset({"logits", "embedding", "head"}), student=student)

    def forward(self, batch: MethodInput) -> torch.Tensor:
        """Both parts."""
        assert batch.student.embedding is not None
        assert batch.taught.embedding is not None
        if self._form == "map":
            features = batch.student.features[self._stage]
        else:
            features = batch.student.embedding[:, :, None, None]
        with as_computed(features):
            connected = self.connector(features)
        connected_BD = in_float32(connected).mean(dim=(2, 3))
        of_features = mse_loss(connected_BD, in_float32(batch.taught.embedding))
        of_logits = mse_loss(linear(connected_BD, self.head_weight, self.head_bias), in_float32(batch.taught.logits))
        return of_features + self._logit_weight * of_logits


def _connector(channels: int, width: int, *, as_published: bool) -> nn.Sequential:
    layer = convolution(channels, width)
    if as_published:
        nn.init.normal_(layer.weight, std=(2 / width) ** 0.5)
    return nn.Sequential(layer, nn.BatchNorm2d(width), nn.ReLU())


METHOD = SRRL
