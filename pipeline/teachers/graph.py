"""A teacher's forward pass as one CUDA graph: the host launches it once in place of a hundred kernels."""

from collections.abc import Callable

import torch

from pipeline.core.errors import ConfigError
from pipeline.models.outputs import Outputs

_WARM_UPS = 3  # by then algorithms are chosen and kernels compiled, neither of which may happen in a capture


class GraphedForward:
    """Runs `forward` as a graph for images of the first shape that comes, and as it is for any other.

    A graph reads and writes the same memory at every launch: images are copied to where it reads them, and outputs hold
    until the next call. A micro-batch's are used before the next one's teacher is asked, on the same stream.

    Args:
        forward: a network's forward pass on CUDA, without gradient, that never waits for the device.
    """

    def __init__(self, forward: Callable[[torch.Tensor], Outputs]) -> None:
        self._forward = forward
        self._graph: torch.cuda.CUDAGraph | None = None
        self._images: torch.Tensor
        self._outputs: Outputs

    def __call__(self, images: torch.Tensor) -> Outputs:
        """The outputs for normalised (B, 3, H, W) images.

        Raises:
            ConfigError: at the first call, of a network that waits for the device, which no graph can hold.
        """
        if self._graph is None:
            self._graph = self._capture(images)
        if images.shape != self._images.shape:
            return self._forward(images)
        self._images.copy_(images)
        self._graph.replay()
        return self._outputs

    def _capture(self, images: torch.Tensor) -> torch.cuda.CUDAGraph:
        self._images, graph = images.clone(), torch.cuda.CUDAGraph()
        for _ in range(_WARM_UPS):
            self._forward(self._images)
        try:
            # other threads go on: they pin memory for the next rows, and watch over NCCL
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._outputs = self._forward(self._images)
        except RuntimeError as error:
            raise ConfigError(
                "--cuda-graphs teacher needs a teacher that never waits for the device (.item(), .cpu(), a branch on a"
                f" value), and this one cannot be captured: {str(error).splitlines()[0]}\nLeave the flag out."
            ) from error
        return graph
