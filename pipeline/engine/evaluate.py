"""Top-1, top-5 and cross-entropy of a network, every sample counted once for every world size."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from pipeline.data.loader import Batch
from pipeline.devices.world import World
from pipeline.models.outputs import Outputs


@dataclass(frozen=True)
class Accuracy:
    """What an evaluation found: shares in percent, mean cross-entropy in nats, number of samples counted."""

    top1: float
    top5: float
    ce: float
    num_samples: int


def evaluate(
    predict: Callable[[torch.Tensor], Outputs],
    batches: Iterator[Batch],
    *,
    prepare: Callable[[torch.Tensor], torch.Tensor],
    world: World,
    on_batch: Callable[[int], bool] = lambda _: False,
    num_rounds: int,
) -> Accuracy | None:
    """Evaluate over all ranks; None if it was broken off.

    Args:
        predict: normalised images to outputs.
        batches: this rank's share of the data.
        prepare: pixels to normalised images.
        world: the ranks, over which the counts are summed.
        on_batch: called with the number of rounds done, on every rank equally often; true breaks off (on all ranks at
            the same round, if it is agreed).
        num_rounds: the greatest number of batches that any rank has.
    """
    totals = torch.zeros(4, dtype=torch.float64, device=world.device)
    for done in range(num_rounds):
        if on_batch(done):
            return None
        batch = next(batches, None)
        if batch is None:
            continue
        with torch.inference_mode():
            totals += _count(predict(prepare(batch.images)).logits, batch.labels)
    world.sum_(totals)
    top1, top5, ce, count = totals.tolist()
    return Accuracy(100 * top1 / count, 100 * top5 / count, ce / count, int(count))


def _count(logits_BC: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
    best = logits_BC.topk(min(5, logits_BC.shape[1]), dim=1).indices == labels_B[:, None]
    ce = cross_entropy(logits_BC.double(), labels_B, reduction="sum")
    size = torch.full_like(ce, len(labels_B))
    return torch.stack((best[:, 0].sum().double(), best.sum().double(), ce, size))
