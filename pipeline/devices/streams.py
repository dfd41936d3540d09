"""Every CUDA stream and event of the project: what runs beside the step, and who waits for whom.

Four rules are kept here, so that nobody else has to know them:

* Work on one stream runs in its order; across streams an event makes the order, or nothing does.
* Freed device memory goes, at once, to the next tensor of the stream that allocated it. Whoever reads a tensor on
  another stream tells the allocator (`record_stream`), or it is written over before it has been read.
* Pinned memory stays whole until the copies that torch itself made of it with `non_blocking` are done; of other
  libraries' copies torch knows nothing.
* The copy stream never waits for the step: DALI's stream waits for it, and would decode nothing meanwhile.

A host thread that waits for an event sleeps (`blocking`): its core has images to decode.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class HostCopy(Generic[T]):
    """A copy on the host that the device may still be writing; `wait` may be called in another thread."""

    _content: T
    _arrived: torch.cuda.Event | None

    def wait(self) -> T:
        """The copy, once it is whole."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._content


def copy_to_host(nested: T) -> HostCopy[T]:
    """Begin to copy every tensor of nested dicts, lists and tuples to the host; what is no tensor goes along.

    The copies are enqueued on the current stream, behind what computes the tensors: the originals may be changed or
    dropped at once. Copies are `host_like`. A tensor that is on the host already is copied at once.
    """
    devices: set[torch.device] = set()

    def copy(value: torch.Tensor) -> torch.Tensor:
        value = value.detach()
        if not value.is_cuda:
            return value.clone()
        devices.add(value.device)
        return host_like(value).copy_(value, non_blocking=True)

    content = _each(nested, copy)
    return HostCopy(content, _event_behind(devices.pop()) if devices else None)


def host_like(value: torch.Tensor) -> torch.Tensor:
    """An empty tensor on the CPU, pinned where `value` is on a CUDA device, with the strides of `value`.

    A fused optimiser refuses momenta whose strides are not their parameter's, and adopts those of a checkpoint.
    """
    return torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)


@dataclass(frozen=True)
class Sent(Generic[T]):
    """Tensors that are ordered on the copy stream, perhaps before they have been written there."""

    _content: T
    _written: torch.cuda.Event
    _device: torch.device

    def receive(self) -> T:
        """The tensors, for the current stream: its next work waits for them, the host does not."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(self._written)

        def take(tensor: torch.Tensor) -> torch.Tensor:
            tensor.record_stream(current)
            return tensor

        return _each(self._content, take)


class CopyStream:
    """The stream of a device on which batches come in, beside the one that computes. See `copy_stream`.

    Attributes:
        handle: its cudaStream_t, for libraries that write to memory of torch.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self.handle: int = self._stream.cuda_stream

    def send(self, nested: T) -> Sent[T]:
        """Begin to copy every tensor of nested dicts, lists and tuples to the device.

        From the host, best pinned, which nobody writes into any more; or on the device already, made on this stream.
        """
        with self.used():
            content = _each(nested, lambda tensor: tensor.to(self._device, non_blocking=True))
            return Sent(content, _event_behind(self._device), self._device)

    def used(self) -> AbstractContextManager[Any]:
        """A block in which torch allocates and computes on this stream. No `yield` belongs in it."""
        return torch.cuda.stream(self._stream)


def copy_stream(device: torch.device) -> CopyStream:
    """The one copy stream of a CUDA device: what a backend makes on it needs no event to be sent on it."""
    return _copy_stream(torch.cuda.current_device() if device.index is None else device.index)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A backend's images for the device's current stream; on the CPU, as they are."""
    return tensor if device.type == "cpu" else copy_stream(device).send(tensor).receive()


def on_default_stream(device: torch.device) -> bool:
    """Whether work goes to a CUDA device's default stream now: in no graph's capture and no `used` block."""
    return bool(torch.cuda.current_stream(device) == torch.cuda.default_stream(device))


@cache
def _copy_stream(device_index: int) -> CopyStream:
    return CopyStream(torch.device("cuda", device_index))


def _event_behind(device: torch.device) -> torch.cuda.Event:
    """An event that comes to pass when all that is on the device's current stream now has been done."""
    event = torch.cuda.Event(blocking=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _each(nested: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(nested, torch.Tensor):
        return change(nested)
    if isinstance(nested, dict):
        return {key: _each(part, change) for key, part in nested.items()}
    if isinstance(nested, list | tuple):
        return type(nested)(_each(part, change) for part in nested)
    return nested
