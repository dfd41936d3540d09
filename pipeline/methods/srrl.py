"""Softmax regression representation learning: the student's features, read by the teacher's classifier.

Legend: B batch, D dimensions of the teacher's embedding, C classes.
"""

import torch
from torch import nn
from torch.nn.functional import linear, mse_loss

from pipeline.core.errors import ConfigError
from pipeline.losses.srrl import SRRLLoss
from pipeline.methods._shared.connectors import convolution, seeded, shapes_of
from pipeline.methods._shared.method import Method, MethodInput, Setting
from pipeline.methods._shared.precision import as_computed, in_float32


class SRRL(Method[SRRLLoss]):
    """MSE(x, teacher's embedding) + logit_weight * MSE(W x + b, teacher's logits), x the student's connected features.

    The connector is a 1 x 1 convolution, BatchNorm and ReLU; W and b are the teacher's classifier, frozen.
    """

    head_weight: torch.Tensor
    head_bias: torch.Tensor

    def build(self, setting: Setting) -> None:
        """Make the connector and keep the teacher's classifier, which is no part of a checkpoint."""
        if setting.head is None:
            raise ConfigError("srrl reads the student's features by the teacher's classifier, and none was found")
        if self.loss.form == "pooled" and setting.micro_batch < 2:
            raise ConfigError(
                "srrl's pooled form normalises the embedding over the micro-batch, which must be 2 or more: got"
                f" {setting.micro_batch}. Raise --batch or lower --micro-batches, or take the form 'map'."
            )
        weight, bias = setting.head
        self.register_buffer("head_weight", weight.clone(), persistent=False)
        self.register_buffer("head_bias", bias.clone(), persistent=False)
        channels = setting.student_dim
        if self.loss.form == "map":
            channels = shapes_of((self.loss.stage,), setting.student_maps, whose="student")[0][0]
        with seeded(setting.seed, "srrl"):
            self.connector = _connector(channels, weight.shape[1], as_published=self.loss.form == "map")

    def forward(self, batch: MethodInput) -> torch.Tensor:
        """Both parts."""
        assert batch.student.embedding is not None
        assert batch.taught.embedding is not None
        if self.loss.form == "map":
            features = batch.student.features[self.loss.stage]
        else:
            features = batch.student.embedding[:, :, None, None]
        with as_computed(features):
            connected = self.connector(features)
        connected_BD = in_float32(connected).mean(dim=(2, 3))
        of_features = mse_loss(connected_BD, in_float32(batch.taught.embedding))
        of_logits = mse_loss(linear(connected_BD, self.head_weight, self.head_bias), in_float32(batch.taught.logits))
        return of_features + self.loss.logit_weight * of_logits


def _connector(channels: int, width: int, *, as_published: bool) -> nn.Sequential:
    layer = convolution(channels, width)
    if as_published:
        nn.init.normal_(layer.weight, std=(2 / width) ** 0.5)
    return nn.Sequential(layer, nn.BatchNorm2d(width), nn.ReLU())
