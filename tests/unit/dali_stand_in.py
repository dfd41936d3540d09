"""DALI's pipeline on a GPU, as far as a consumer can tell: outputs in a pool of buffers, ordered on DALI's own stream.

As in DALI's dynamic executor: a buffer goes back to the pool when nothing on the host refers to it any more, whatever
other streams still do with it, and the next batch is written into it in the order of DALI's stream. `share_outputs`
lets the given stream wait for the pixels; `copy_to_external` copies in the order of a stream and lets DALI's wait.
"""

from collections import deque
from ctypes import c_void_p
from typing import Any

import numpy as np
import torch
from stream_simulator import DeviceTensor, Memory, Simulator, Stream, Ticket

from pipeline.data.backend import BackendOptions


def pixels_of(sample_id: int, side: int) -> torch.Tensor:
    """(side, side, 3) uint8, no two images alike, none white."""
    return torch.full((side, side, 3), sample_id % 200, dtype=torch.uint8)


class GpuPipeline:
    """What `dali._replay_pipeline` gives.

    Args:
        simulator: of streams.
        feed: DALI's external source; its oldest waiting request says which images are meant.
        options: of the backend.

    Attributes:
        waits: whether `copy_to_external` lets DALI's stream wait for the copy, as it does.
        unreadable: sample ids that spoil the pipeline.
    """

    waits = True
    unreadable: frozenset[int] = frozenset()

    def __init__(self, simulator: Simulator, feed: Any, options: BackendOptions) -> None:
        self.simulator = simulator
        self.stream = Stream(simulator, "DALI")
        self._feed, self._side, self._depth = feed, options.resolution, options.prefetch
        self._pool: list[np.ndarray] = []
        self._outputs: deque[tuple[ImagesGPU, Ticket]] = deque()

    def schedule_run(self) -> None:
        """Draw a request and enqueue its images; the first time as many as the queue is deep."""
        depth, self._depth = self._depth, 1
        for _ in range(depth):
            try:
                self._feed()
            except StopIteration:
                return
            request = self._feed.waiting[-1]
            self._decode(request.rows.ids[request.good].tolist())

    def share_outputs(self, stream: int) -> tuple["ImagesGPU"]:
        """The oldest batch; the stream with that handle waits for it."""
        images, decoded = self._outputs.popleft()
        if images.is_spoiled:
            raise RuntimeError("Critical error: Error when executing Mixed operator, encountered: unreadable")
        self.stream_of(stream).wait(decoded)
        return (images,)

    def release_outputs(self) -> None:
        """Nothing: the dynamic executor counts references."""

    def stream_of(self, handle: int) -> Stream:
        """The stream with a handle."""
        return next(stream for stream in self.simulator.streams if stream.cuda_stream == handle)

    def _decode(self, ids: list[int]) -> None:
        shape = (len(ids), self._side, self._side, 3)
        base = self._pool.pop() if self._pool else np.full(int(np.prod(shape)), 0xFF, np.uint8)
        memory = Memory(self.simulator, base, self._free)
        raw = memory.lend()[: int(np.prod(shape))].view(shape)
        target = memory.unowned(raw)
        self.stream.put(lambda: target.copy_(torch.stack([pixels_of(one, self._side) for one in ids])))
        self._outputs.append((ImagesGPU(self, raw, not self.unreadable.isdisjoint(ids)), self.stream.mark()))

    def _free(self, memory: Memory) -> None:
        self.stream.put(memory.poison)
        self._pool.append(memory.base)


class ImagesGPU:
    """TensorListGPU and TensorGPU in one: what is asked of both."""

    def __init__(self, pipeline: GpuPipeline, raw: torch.Tensor, is_spoiled: bool) -> None:
        self._pipeline, self._raw, self.is_spoiled = pipeline, raw, is_spoiled

    def __len__(self) -> int:
        return len(self._raw)

    def as_tensor(self) -> "ImagesGPU":
        """The same memory."""
        return self

    def as_torch(self) -> torch.Tensor:
        """The same memory as a tensor of torch: what `from_dlpack` gives."""
        return DeviceTensor.over(self._raw, self._pipeline.simulator)

    def copy_to_external(self, where: c_void_p, order: c_void_p, *, non_blocking: bool) -> None:
        """Copy in the order of a stream, behind DALI's; DALI's own stream goes on behind the copy."""
        assert non_blocking, "the host would wait for the copy"
        pipeline, stream = self._pipeline, self._pipeline.stream_of(order.value)
        source = pipeline.simulator.memory_of(self._raw).unowned(self._raw)
        target = torch.from_numpy(pipeline.simulator.memories[where.value].base).view(source.shape)
        stream.wait(pipeline.stream.mark())
        stream.put(lambda: target.copy_(source))
        if pipeline.waits:
            pipeline.stream.wait(stream.mark())
