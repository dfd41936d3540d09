"""Which samples a training step sees: a pure function of (run_seed, epoch, step). numpy only.

An epoch is a permutation made by sorting Philox keys; a global batch is a slice of it, cut into micro-batches of fixed
size; ranks are dealt whole micro-batches. The only loader state of a job is the global step, whatever its world size.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.core.errors import ConfigError
from pipeline.core.rng import Stream, check_seed, counters, philox


@dataclass(frozen=True)
class MicroBatch:
    """One unit of everything batch-coupled. `index` counts within its step; `ids` is (b,) int64."""

    step: int
    epoch: int
    index: int
    ids: np.ndarray


@dataclass(frozen=True)
class Order:
    """The order of a training job.

    Attributes:
        ids: (N,) sample ids that take part (all of an index, or a subset that keeps its parent's ids).
        run_seed: the experiment's seed.
        micro_batch: samples per micro-batch.
        num_micro_batches: micro-batches per step, M; the global batch is M * micro_batch.

    A last, incomplete step of an epoch is left out: every step has the same M equal micro-batches.
    """

    ids: np.ndarray
    run_seed: int
    micro_batch: int
    num_micro_batches: int

    def __post_init__(self) -> None:
        check_seed("run_seed", self.run_seed)
        if self.batch > len(self.ids):
            raise ConfigError(
                f"the global batch must not exceed the data set: --batch {self.batch}, {len(self.ids)} samples.\n"
                f"Give --batch {len(self.ids)} or less."
            )

    @property
    def batch(self) -> int:
        """Samples per step, over all ranks."""
        return self.micro_batch * self.num_micro_batches

    @property
    def steps_per_epoch(self) -> int:
        """Whole steps in one pass over the data."""
        return len(self.ids) // self.batch

    def epoch_of(self, step: int) -> int:
        """The epoch, from 0, that global step `step` belongs to."""
        return step // self.steps_per_epoch

    def permutation(self, epoch: int) -> np.ndarray:
        """All sample ids in the order of `epoch`, (N,) int64. About 60 ms for 1.28 M samples."""
        return self.ids[permutation(len(self.ids), self.run_seed, epoch)]

    def deal(self, rank: int, world_size: int) -> range:
        """The micro-batches of a step that `rank` runs: every world_size-th, from its own number on."""
        if world_size > self.num_micro_batches:
            raise ConfigError(
                f"every rank needs a micro-batch: {self.num_micro_batches} micro-batches, {world_size} ranks.\n"
                "Start fewer ranks, or a new run with --micro-batches of at least the number of ranks."
            )
        return range(rank, self.num_micro_batches, world_size)

    def micro_batches(self, permuted: np.ndarray, step: int, indices: range) -> list[MicroBatch]:
        """The micro-batches `indices` of `step`, cut from `permuted` = `permutation(epoch_of(step))`."""
        epoch, position = divmod(step, self.steps_per_epoch)
        first = position * self.batch
        starts = [(index, first + index * self.micro_batch) for index in indices]
        return [MicroBatch(step, epoch, index, permuted[start : start + self.micro_batch]) for index, start in starts]


def permutation(num_samples: int, run_seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(num_samples), (N,) int64, as a function of (run_seed, epoch).

    Sorts 64-bit words whose high bits are Philox output and whose low bits are the position, so that there are no
    ties to break and no argsort to pay for.
    """
    num_blocks = (num_samples + 1) // 2
    words = philox(counters((np.arange(num_blocks), 0, epoch, 0)), (run_seed, Stream.ORDER)).astype(np.uint64)
    keys = np.stack((words[:, 0] << np.uint64(32) | words[:, 1], words[:, 2] << np.uint64(32) | words[:, 3]), axis=1)
    mask = np.uint64((1 << max(num_samples - 1, 1).bit_length()) - 1)
    packed = (keys.reshape(-1)[:num_samples] & ~mask) | np.arange(num_samples, dtype=np.uint64)
    packed.sort()
    return (packed & mask).astype(np.int64)
