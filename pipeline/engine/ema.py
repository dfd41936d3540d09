"""An exponential moving average of the trained module, beside it."""

import copy

import torch

from pipeline.models.network import Network


class ModuleAverage:
    """A <- decay A + (1 - decay) module, for parameters, after every step. Buffers are copied when it is read.

    Args:
        module: the module that is trained.
        decay: share of the old average kept at each step.
    """

    def __init__(self, module: Network, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self._decay = decay
        self._averages: list[torch.Tensor] = list(self.module.parameters())
        self._sources = [parameter.detach() for parameter in module.parameters()]
        self._buffers = list(zip(self.module.buffers(), module.buffers(), strict=True))

    def update(self) -> None:
        """Take in the parameters as they are now."""
        torch._foreach_lerp_(self._averages, self._sources, 1 - self._decay)

    def copy_buffers(self) -> None:
        """Copy the module's buffers (running statistics) as they are now."""
        for own, source in self._buffers:
            own.copy_(source)
