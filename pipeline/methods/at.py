"""Attention transfer.

Legend: B batch, H height, W width.
"""

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from pipeline.losses.at import ATLoss
from pipeline.methods._shared.method import Method, MethodInput
from pipeline.methods._shared.pooling import pool_larger
from pipeline.methods._shared.precision import in_float32


class AT(Method[ATLoss]):
    """Mean squared difference of normalised attention maps, summed over stages.

    A map's attention is its squares' mean over channels, flattened to a unit vector of H W numbers; so a stage's term
    scales as 1 / (H W), and the deepest stages weigh most. Where sizes differ, the larger map is pooled first.
    """

    def forward(self, batch: MethodInput) -> Tensor:
        """The sum over stages."""
        attention = attention_map if self.loss.variant == "repdistiller" else _broadcast_attention
        terms = []
        for stage in self.loss.stages:
            student, teacher = pool_larger(
                in_float32(batch.student.features[stage]), in_float32(batch.taught.features[stage])
            )
            terms.append(mse_loss(attention(student), attention(teacher)))
        return torch.stack(terms).sum()


def attention_map(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W) with rows of norm 1."""
    return normalize(features.square().mean(dim=1).flatten(1))


def _broadcast_attention(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, B, H, W): entry i, j is sample j's channel sum over sample i's norm."""
    sums_BHW = features.sum(dim=1)
    return sums_BHW / sums_BHW.flatten(1).norm(dim=1)[:, None, None, None]
