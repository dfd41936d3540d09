"""The k greatest logits and what is left over: the smallest codec, right for losses at temperature 1 only.

On disk: `topk_indices` (k,) <i2 (<i4 above 32,767 classes), the classes of the k greatest logits, greatest first, equal
ones by lower index; `topk_values` (k,) <f2, their logits; `topk_logsumexp` () <f4, log sum exp over ALL logits;
`topk_tail_mass` () <f4, the softmax probability of all classes that are not kept, summed over them (never 1 - the kept,
which would lose small tails). 4 k + 8 bytes a row (6 k + 8 above 32,767 classes).
Decoding, to logits for a softmax at temperature 1 (the format of FKD and TinyViT): kept classes have their value; every
other class has log(max(tail_mass, 2^-126)) - log(width - k) + logsumexp, an equal share of the tail.
Error of a kept logit: at most max(|x| / 2^11, 2^-25). Nothing bounds the others one by one: only their mass is kept.
Kept logits beyond 65504 and values that are not finite are refused.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pipeline.core.errors import StoreError
from stores.codec import Codec, Field, Source
from stores.codecs._shared.checks import check_rows
from stores.codecs._shared.float16 import GREATEST, rounding_bound

DEFAULT_K = 20
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_LEAST_TAIL = 2.0**-126  # float32's least normal number: its logarithm is finite, its mass is nothing


@dataclass(frozen=True)
class SparseLogits:
    """Rows as a loss over kept classes and one tail reads them; torch tensors on the fields' device.

    Attributes:
        indices: (B, k) int64, kept classes, the most probable first.
        log_probs: (B, k) float32, their log-probabilities at temperature 1.
        log_tail: (B,) float32, log-probability of all other classes together.
    """

    indices: Any
    log_probs: Any
    log_tail: Any


@dataclass(frozen=True)
class TopK(Codec):
    """The k greatest logits, logsumexp and the mass of the others.

    Attributes:
        width: classes.
        k: classes kept, fewer than `width`.
    """

    id: ClassVar[str] = "topk"
    source: ClassVar[Source] = "logits"
    exact_support: ClassVar[bool] = False
    k: int = DEFAULT_K

    def __post_init__(self) -> None:
        if not 1 <= self.k < self.width:
            raise StoreError(
                f"topk keeps at least one class and not all of them: k = {self.k} of {self.width} classes; "
                f"choose another k (topk:K), or keep all (dense_f16)"
            )

    @property
    def fields(self) -> tuple[Field, ...]:
        """See `Codec`."""
        index = "<i2" if self.width <= np.iinfo(np.int16).max else "<i4"
        return (
            Field("topk_indices", index, (self.k,)),
            Field("topk_values", "<f2", (self.k,)),
            Field("topk_logsumexp", "<f4", ()),
            Field("topk_tail_mass", "<f4", ()),
        )

    def encode(self, rows_BK: np.ndarray) -> dict[str, np.ndarray]:
        """See `Codec`."""
        check_rows(rows_BK, codec=self.id, width=self.width, greatest=_FLOAT32_MAX)
        indices = self._greatest(rows_BK)
        values = np.take_along_axis(rows_BK, indices, axis=1)
        check_rows(values, codec=self.id, width=self.k, greatest=GREATEST)
        logsumexp, tail_mass = _mass(rows_BK, indices)
        return {
            "topk_indices": indices.astype(self.fields[0].dtype),
            "topk_values": values.astype("<f2"),
            "topk_logsumexp": logsumexp.astype("<f4"),
            "topk_tail_mass": tail_mass.astype("<f4"),
        }

    def decode(self, fields: dict[str, np.ndarray]) -> np.ndarray:
        """See `Codec`."""
        tail = np.log(np.maximum(fields["topk_tail_mass"], np.float32(_LEAST_TAIL))) - self._log_others
        rows = np.repeat((tail + fields["topk_logsumexp"])[:, None], self.width, axis=1)
        np.put_along_axis(rows, fields["topk_indices"].astype(np.int64), fields["topk_values"].astype(np.float32), 1)
        return rows

    def decode_tensors(self, fields: dict[str, Any]) -> Any:
        """See `Codec`."""
        tail = fields["topk_tail_mass"].clamp(min=_LEAST_TAIL).log() - float(self._log_others)
        rows = (tail + fields["topk_logsumexp"]).unsqueeze(1).repeat(1, self.width)
        return rows.scatter_(1, fields["topk_indices"].long(), fields["topk_values"].float())

    def sparse_tensors(self, fields: dict[str, Any]) -> SparseLogits:
        """What a loss needs that never makes rows of all classes, for torch tensors; does not wait for the device."""
        log_probs = fields["topk_values"].float() - fields["topk_logsumexp"].unsqueeze(1)
        log_tail = fields["topk_tail_mass"].clamp(min=_LEAST_TAIL).log()
        return SparseLogits(fields["topk_indices"].long(), log_probs, log_tail)

    def bound(self, rows_BK: np.ndarray) -> np.ndarray:
        """See `Codec`."""
        bounds, indices = np.full(rows_BK.shape, np.inf), self._greatest(rows_BK)
        kept = rounding_bound(np.take_along_axis(rows_BK, indices, axis=1))
        np.put_along_axis(bounds, indices, kept, axis=1)
        return bounds

    @property
    def _log_others(self) -> np.float32:
        return np.float32(math.log(self.width - self.k))

    def _greatest(self, rows_BK: np.ndarray) -> np.ndarray:
        """(B, k) int64 indices of the k greatest values, in order, equal values by lower index.

        A value and its index become one integer, no two of them equal: a partition cannot depend on how ties fall.
        """
        bits = (rows_BK + np.float32(0)).view(np.int32)  # + 0: -0 and 0 are equal
        ascending = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)  # floats' order, as integers
        keys = (ascending << 32) | np.arange(self.width - 1, -1, -1)
        keys.partition(self.width - self.k, axis=1)
        kept = np.sort(keys[:, self.width - self.k :], axis=1)[:, ::-1]
        return self.width - 1 - (kept & 0xFFFFFFFF)


def _mass(rows_BK: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log sum exp of rows (B,), and the probability of what is not `kept` (B,), float64."""
    greatest = rows_BK.max(axis=1, initial=-np.inf).astype(np.float64)
    weights = np.exp(rows_BK - greatest[:, None])
    total = weights.sum(axis=1)
    np.put_along_axis(weights, kept, 0.0, axis=1)
    return greatest + np.log(total), weights.sum(axis=1) / total
