"""Logit standardisation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses._shared.record import Loss
from pipeline.losses._shared.wrapping import WrapperLoss


@dataclass(frozen=True)
class LSKDLoss(WrapperLoss):
    """The base's loss on standardised logits; all its numbers are the base's: T 2, and 9 times the usual weights."""

    paper = "Sun et al. 2024, arXiv:2403.01427"
    published = {R34_R18: "71.42 (README), 71.23 and 71.39 (reproduced)", R50_MBV1: "72.18 (unchecked)"}

    @classmethod
    def values_for(cls, base: type[Loss]) -> Mapping[str, Any] | None:
        """Those that its authors name, for DKD in their issue 31."""
        return {
            "kd": {"kd": 9.0, "temperature": 2.0},
            "dkd": {"temperature": 2.0, "alpha": 9.0, "beta": 4.5},
        }.get(base.name)

    def refuses_topk(self, num_kept: int) -> str | None:
        """Never served: the deviation is taken over all classes."""
        return "the deviation of the logits is taken over all classes"
