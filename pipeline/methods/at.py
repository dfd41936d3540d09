"""Attention transfer (Zagoruyko and Komodakis 2017, arXiv:1612.03928).

Legend: B batch, H height, W width.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from pipeline.methods.base import R34_R18, R50_MV1, Method, MethodInfo, MethodInput, Needs, Weights
from pipeline.methods.parts import STAGES, check_taps, in_float32, pool_larger

INFO = MethodInfo(
    paper="Zagoruyko and Komodakis 2017, arXiv:1612.03928",
    published={R34_R18: "70.70 (READMEs), 70.90 (torchdistill)", R50_MV1: "69.56 (unchecked), 70.72 (NORM)"},
)

PRESETS: dict[str, dict[str, Any]] = {
    "repdistiller": {"ce": 1.0, "kd": 0.0, "weight": 1000.0},
    "mdistiller": {"ce": 1.0, "kd": 0.0, "weight": 1000.0},
    "simkd": {"ce": 1.0, "kd": 1.0, "temperature": 4.0, "weight": 1000.0},
    "ctkd": {"ce": 1.0, "kd": 1.0, "temperature": 4.0, "weight": 1000.0},
    "seed004": {"ce": 1.0, "kd": 0.0, "weight": 30.0, "variant": "seed004"},
}


class AT(Method):
    """Mean squared difference of normalised attention maps, summed over stages.

    A map's attention is its squares' mean over channels, flattened to a unit vector of H W numbers; so a stage's term
    scales as 1 / (H W), and the deepest stages weigh most. Where sizes differ, the larger map is pooled first.

    Args:
        ce: weight of the cross-entropy.
        kd: weight of the temperature-scaled divergence; SimKD and CTKD use 1.
        temperature: T of that divergence.
        weight: of this term; 1000 in every public code, with "seed004" 30.
        stages: the taps compared; torchdistill's ImageNet setting takes the last two.
        variant: "repdistiller" is the paper's, as in RepDistiller, SimKD, CTKD and mdistiller. "seed004" is that of
            PkuDavidGuan/Distillation as published: channels summed without a square, and every sample divided by every
            sample's norm through a wrong broadcast. Only for comparison: it made its student worse than none.
    """

    def __init__(
        self,
        *,
        ce: float = 1.0,
        kd: float = 0.0,
        temperature: float = 4.0,
        weight: float = 1000.0,
        stages: tuple[str, ...] = STAGES,
        variant: Literal["repdistiller", "seed004"] = "repdistiller",
    ) -> None:
        super().__init__()
        check_taps("--stages", stages)
        self.weights = Weights(ce=ce, kd=kd, temperature=temperature, method=weight)
        self._stages, self._variant = tuple(stages), variant

    @property
    def needs(self) -> Needs:
        """The same stages of both networks."""
        return Needs(teacher=frozenset({"logits", *self._stages}), student=frozenset(self._stages))

    def forward(self, batch: MethodInput) -> Tensor:
        """The sum over stages."""
        attention = attention_map if self._variant == "repdistiller" else _broadcast_attention
        terms = []
        for stage in self._stages:
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


METHOD = AT
