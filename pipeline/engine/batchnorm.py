"""Running statistics of BatchNorm that do not depend on the number of ranks.

Training uses each micro-batch's own statistics, so gradients are the same for every world size. The running averages
are linear in the batch statistics s_j of the M micro-batches of a step:

    R <- (1 - m) R + m mean_j s_j

A rank with the micro-batches J of a step (W ranks in all) keeps R_r <- (1 - m) R_r + m W/M sum_{j in J} s_j, whose mean
over ranks is R. The mean is taken when it is read, for evaluation and saving; training never needs it.

The layers' counts of batches, a launch each at every forward pass, are kept on the host in the same way: steps are
counted here, and written into the buffers when these are read.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.core.errors import ConfigError
from pipeline.devices.world import World


class RunningStatistics:
    """The BatchNorm buffers of a module, over micro-batches and ranks.

    Args:
        module: the module whose BatchNorm layers take part.
        num_own: micro-batches that this rank runs in a step.
        num_all: micro-batches of a step over all ranks, M.
        world: the ranks.
    """

    def __init__(self, module: nn.Module, *, num_own: int, num_all: int, world: World) -> None:
        layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
        self._layers, self._world = layers, world
        self._buffers = [b for layer in layers for b in (layer.running_mean, layer.running_var) if b is not None]
        counts = {layer: count for layer in layers if (count := _count_of(layer)) is not None}
        self._counted = {layer: count for layer, count in counts.items() if _counts_on_the_host(layer)}
        self._own_counts = [count for layer, count in counts.items() if layer not in self._counted]
        self._uncounted_steps = 0
        self._share, self._num_own = world.size / num_all, num_own
        # one micro-batch on every rank: PyTorch's own update is this formula
        self._native = num_own == 1 and num_all == world.size
        for layer in self._counted:
            vars(layer)["num_batches_tracked"] = None  # hides the buffer from forward(), not from state_dict()
        if not self._native and layers:
            self._take_over()

    def begin_step(self) -> None:
        """Before the first micro-batch of a step."""
        if self._native or not self._buffers:
            return
        torch._foreach_copy_(self._base, self._buffers)
        torch._foreach_zero_(self._sum)

    def after_micro_batch(self) -> None:
        """After each micro-batch's forward pass."""
        if not self._native and self._buffers:
            torch._foreach_add_(self._sum, self._buffers)

    def end_step(self) -> None:
        """After the last micro-batch of a step."""
        self._uncounted_steps += 1
        if self._native or not self._buffers:
            return
        torch._foreach_mul_(self._base, [1 - m for m in self._momenta])
        torch._foreach_mul_(self._sum, [m * self._share for m in self._momenta])
        torch._foreach_add_(self._base, self._sum)
        torch._foreach_copy_(self._buffers, self._base)
        if self._own_counts:
            torch._foreach_sub_(self._own_counts, self._num_own - 1)

    def gather(self) -> torch.Tensor:
        """(W, K) float32 on the CPU: every rank's buffers, flat, on every rank."""
        return self._world.gather_rows(self._flat())

    def load(self, gathered: torch.Tensor) -> None:
        """Continue from what `gather` returned: this rank's row, or the mean of all if the world has changed."""
        own = gathered[self._world.rank] if len(gathered) == self._world.size else mean_over_ranks(gathered)
        self._set(own)
        self._uncounted_steps = 0

    @contextmanager
    def averaged(self, gathered: torch.Tensor | None = None) -> Iterator[None]:
        """Inside the block the buffers hold the mean over ranks, and counts; training's own come back afterwards.

        Args:
            gathered: what `gather` returned just now, where it is at hand.
        """
        self._write_counts()
        own = self._flat()
        self._set(mean_over_ranks(self.gather() if gathered is None else gathered))
        try:
            yield
        finally:
            self._set(own)

    def _take_over(self) -> None:
        momenta = [layer.momentum for layer in self._layers for _ in range(2)]
        self._momenta = [momentum for momentum in momenta if momentum is not None]
        if len(self._momenta) < len(momenta):
            raise ConfigError(
                "BatchNorm with momentum None (a cumulative average) depends on how micro-batches are dealt.\n"
                "Give it a momentum, or run one micro-batch a rank."
            )
        for layer in self._layers:
            layer.momentum = 1.0  # a forward pass then leaves the batch's own statistics in the buffers
        self._base = [torch.empty_like(buffer) for buffer in self._buffers]
        self._sum = [torch.empty_like(buffer) for buffer in self._buffers]

    def _write_counts(self) -> None:
        for layer, count in self._counted.items():
            if layer.training:
                count.add_(self._uncounted_steps)
        self._uncounted_steps = 0

    def _flat(self) -> torch.Tensor:
        if not self._buffers:
            return torch.zeros(0)
        return torch.cat([buffer.flatten() for buffer in self._buffers])

    def _set(self, flat: torch.Tensor) -> None:
        if not self._buffers:
            return
        pieces = torch.split(flat.to(self._buffers[0].device), [buffer.numel() for buffer in self._buffers])
        torch._foreach_copy_(self._buffers, [p.view_as(b) for p, b in zip(pieces, self._buffers, strict=True)])


def _counts_on_the_host(layer: _BatchNorm) -> bool:
    """Whether its forward pass does without its count: not a cumulative average, nor a synchronised layer."""
    return layer.momentum is not None and type(layer).forward is _BatchNorm.forward


def _count_of(layer: _BatchNorm) -> torch.Tensor | None:
    return dict(layer.named_buffers()).get("num_batches_tracked")


def mean_over_ranks(gathered: torch.Tensor) -> torch.Tensor:
    """(K,) mean of (W, K), summed in float64."""
    return gathered.double().mean(dim=0).float()
