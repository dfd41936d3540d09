"""Negatives of contrastive methods, drawn on the device.

Legend: B batch, K negatives, N samples of the data set.
"""

from typing import Literal

import torch
from torch import nn

from pipeline.core.errors import ConfigError
from pipeline.core.rng import Stream
from pipeline.devices.device_rng import below
from pipeline.kernels.philox import row_words

Positive = Literal["exact", "relax"]

_NEGATIVES, _POSITIVE = 0, 1  # what is drawn: a word of the counter, part of every recorded result


class NegativeSampler(nn.Module):
    """Samples of other classes, uniformly, with replacement.

    Samples are contiguous by class, so r uniform in 0..N - n_y - 1, with n_y added from the class's first sample on, is
    uniform over the other classes: exact, and without a list for each class. A draw is a function of (seed, epoch,
    sample, number), so it depends on neither ranks nor batches.

    Args:
        class_counts: n_y of each class, in label order.
        num_negatives: K.
        seed: of the run.
        positive: "exact" takes the sample itself, "relax" a random sample of its class.
    """

    def __init__(
        self, class_counts: tuple[int, ...], *, num_negatives: int, seed: int, positive: Positive = "exact"
    ) -> None:
        super().__init__()
        if sum(count > 0 for count in class_counts) < 2:
            raise ConfigError(f"negatives come from other classes: the data must have two or more, got {class_counts}")
        counts = torch.tensor(class_counts, dtype=torch.int64)
        self._num_samples, self._num_negatives = sum(class_counts), num_negatives
        self._key, self._positive = (seed, int(Stream.NEGATIVES)), positive
        # functions of the data set: no part of a checkpoint
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("starts", counts.cumsum(0) - counts, persistent=False)

    counts: torch.Tensor
    starts: torch.Tensor

    def forward(self, labels_B: torch.Tensor, ids_B: torch.Tensor, epoch: int) -> torch.Tensor:
        """(B, 1 + K) int64 samples, the positive first."""
        count_B1, start_B1 = self.counts[labels_B][:, None], self.starts[labels_B][:, None]
        words_BK = row_words(ids_B, epoch, -(-self._num_negatives // 4), _NEGATIVES, key=self._key)
        draw_BK = below(words_BK[:, : self._num_negatives], self._num_samples - count_B1)
        negatives_BK = torch.where(draw_BK < start_B1, draw_BK, draw_BK + count_B1)
        return torch.cat((self._positives(ids_B, epoch, count_B1, start_B1), negatives_BK), dim=1)

    def _positives(
        self, ids_B: torch.Tensor, epoch: int, count_B1: torch.Tensor, start_B1: torch.Tensor
    ) -> torch.Tensor:
        if self._positive == "exact":
            return ids_B[:, None]
        words_B4 = row_words(ids_B, epoch, 1, _POSITIVE, key=self._key)
        return start_B1 + below(words_B4[:, :1], count_B1)
