"""CUDA's order of things on a CPU: streams run late and in an adversary's order, freed memory is poisoned.

Within `Simulator.active`, tensors on "cuda" are CPU tensors whose operations wait in the queue of the current stream;
`torch.cuda.Stream`, `Event` and their like are the simulator's. Nothing is done before the host waits for it, or the
adversary, drawn from the seed, chooses to. It keeps the rules of CUDA and of torch's allocators:

* a stream's work is done in order; another stream's only behind the events that it was told to wait for;
* freed device memory is overwritten on the stream that allocated it, as its next tensor would, behind the streams that
  `record_stream` named;
* freed pinned memory is overwritten by the host, behind torch's own non-blocking copies from or to it.

What was never written, or is freed, reads as bytes of 0xFF: 255, -1, NaN. A call named in `void` does nothing: a test
of the code without it, which must fail. No device is asked for anything.
"""

import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

POISON = 0xFF
DEVICE = torch.device("cuda", 0)


class Ticket:
    """One recording of an event: comes to pass when its stream gets there."""

    def __init__(self, stream: "Stream") -> None:
        self.stream, self.is_done = stream, False


class Stream:
    """A queue of work: a function, or a ticket to wait for."""

    def __init__(self, simulator: "Simulator", name: str) -> None:
        self.queue: deque[Callable[[], None] | Ticket] = deque()
        self.name, self._simulator = name, simulator
        self.cuda_stream = 0x1000 + len(simulator.streams)
        simulator.streams.append(self)

    @property
    def is_blocked(self) -> bool:
        """Whether nothing can be done here now."""
        return not self.queue or (isinstance(self.queue[0], Ticket) and not self.queue[0].is_done)

    def put(self, work: Callable[[], None]) -> None:
        """Enqueue; the adversary may do something at once, or not."""
        self.queue.append(work)
        self._simulator.fidget()

    def mark(self) -> Ticket:
        """A ticket for all that is enqueued now."""
        ticket = Ticket(self)
        self.put(lambda: setattr(ticket, "is_done", True))
        return ticket

    def wait(self, ticket: Ticket) -> None:
        """Let what is enqueued from now on come behind a ticket."""
        self.queue.append(ticket)

    def wait_event(self, event: "Event") -> None:
        if "wait_event" not in self._simulator.void and event.ticket is not None:
            self.wait(event.ticket)

    def wait_stream(self, other: "Stream") -> None:
        self.wait(other.mark())


class Event:
    """torch.cuda.Event; waiting for one that was not made to block is an error here, since it would spin."""

    def __init__(self, simulator: "Simulator", *, blocking: bool = False) -> None:
        self._simulator, self._blocking = simulator, blocking
        self.ticket: Ticket | None = None

    def record(self, stream: Stream | None = None) -> None:
        self.ticket = (stream or self._simulator.current).mark()

    def synchronize(self) -> None:
        assert self._blocking, "a host thread that waits for this event spins"
        if "synchronize" not in self._simulator.void and self.ticket is not None:
            self._simulator.run_until(self.ticket)


class Memory:
    """A piece of memory: alive as long as a tensor lies in it, then overwritten at the time that its `freed` says."""

    def __init__(self, simulator: "Simulator", base: np.ndarray, freed: Callable[["Memory"], None]) -> None:
        self.base, self.readers, self.copies = base, set[Stream](), list[Ticket]()
        self._lent = weakref.ref(lent := base.view())
        weakref.finalize(lent, freed, self)
        self.bytes = torch.from_numpy(lent)
        simulator.memories[base.ctypes.data] = self

    def lend(self) -> torch.Tensor:
        """(bytes,) uint8 that keep the memory alive, once."""
        bytes_, self.bytes = self.bytes, torch.empty(0)
        return bytes_

    def unowned(self, like: torch.Tensor) -> torch.Tensor:
        """A tensor at the same place that does not keep the memory alive, as a kernel's pointer does not."""
        flat = torch.from_numpy(self.base).view(like.dtype)
        return flat.as_strided(like.shape, like.stride(), like.storage_offset())

    def poison(self) -> None:
        """What its next user leaves there."""
        self.base[...] = POISON


class DeviceTensor(torch.Tensor):
    """A tensor on "cuda" over `raw`, one on the CPU."""

    raw: torch.Tensor
    simulator: "Simulator"

    @staticmethod
    def over(raw: torch.Tensor, simulator: "Simulator") -> "DeviceTensor":
        wrapper = torch.Tensor._make_wrapper_subclass(
            DeviceTensor, raw.shape, strides=raw.stride(), dtype=raw.dtype, device=DEVICE
        )
        wrapper.raw, wrapper.simulator = raw, simulator
        return wrapper

    def __repr__(self) -> str:
        return f"DeviceTensor({tuple(self.shape)}, {self.dtype})"

    def record_stream(self, stream: Stream) -> None:
        """Tell the allocator of a reader on another stream."""
        if "record_stream" not in self.simulator.void:
            self.simulator.memory_of(self.raw).readers.add(stream)

    def data_ptr(self) -> int:
        """For libraries that write here."""
        return self.raw.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        arguments = [*args, *(kwargs or {}).values()]
        simulator = next(value for value in _flat(arguments) if isinstance(value, DeviceTensor)).simulator
        return simulator.dispatch(func, args, kwargs or {})


class Simulator:
    """See the module's docstring.

    Args:
        seed: of the adversary.
        void: calls that do nothing: "wait_event", "record_stream", "synchronize", or "note_copy", by which the
            allocator of pinned memory learns of a copy.
    """

    def __init__(self, seed: int, void: tuple[str, ...] = ()) -> None:
        self.void = frozenset(void)
        self.streams: list[Stream] = []
        self.memories: dict[int, Memory] = {}
        self._random = random.Random(seed)
        self._haste = self._random.choice((0.0, 0.0, 0.2, 0.6))
        self._lock = threading.RLock()
        self.default = self.current = Stream(self, "default")

    # --- time

    def run_until(self, ticket: Ticket) -> None:
        """The host waits: work is done, in an order that the adversary chooses, until the ticket has come to pass."""
        with self._lock:
            while not ticket.is_done:
                self._do_something(self._on_the_way_to(ticket) if self._random.random() < 0.5 else self.streams)

    def run_all(self, but: tuple[Stream, ...] = ()) -> None:
        """Do what can be done, on all streams but some."""
        with self._lock:
            chosen = [stream for stream in self.streams if stream not in but]
            while not all(stream.is_blocked for stream in chosen):
                self._do_something(chosen)

    def fidget(self) -> None:
        """Time passes between two calls of the host: perhaps something is done."""
        with self._lock:
            while self._random.random() < self._haste and not all(stream.is_blocked for stream in self.streams):
                self._do_something(self.streams)

    def _do_something(self, streams: list[Stream]) -> None:
        ready = [stream for stream in streams if not stream.is_blocked]
        assert ready, "a deadlock: every stream waits for another"
        work = self._random.choice(ready).queue.popleft()
        if not isinstance(work, Ticket):
            work()

    def _on_the_way_to(self, ticket: Ticket) -> list[Stream]:
        """The one stream whose next work is needed for the ticket: nothing else is done before its time."""
        stream = ticket.stream
        while stream.is_blocked and stream.queue:
            stream = stream.queue[0].stream
        return [stream]

    # --- memory

    def on_device(self, size: tuple[int, ...], dtype: torch.dtype, base: np.ndarray | None = None) -> DeviceTensor:
        """An uninitialised tensor of the current stream."""
        stream = self.current
        lent = self.memory(size, dtype, lambda memory: self._free(memory, stream))
        return DeviceTensor.over(lent, self)

    def pinned(self, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised pinned tensor on the host."""
        return self.memory(size, dtype, self._free_pinned)

    def memory(self, size: tuple[int, ...], dtype: torch.dtype, freed: Callable[[Memory], None]) -> torch.Tensor:
        """A contiguous CPU tensor in fresh memory."""
        count = max(1, int(np.prod(size))) * dtype.itemsize
        memory = Memory(self, np.full(count, POISON, np.uint8), freed)
        return memory.lend().view(dtype)[: int(np.prod(size))].view(size)

    def memory_of(self, raw: torch.Tensor) -> Memory | None:
        """The memory in which a tensor lies; None for one that is not of the simulator."""
        return self.memories.get(raw.untyped_storage().data_ptr())

    def _free(self, memory: Memory, stream: Stream) -> None:
        if memory.readers <= {stream}:
            stream.put(memory.poison)
        else:
            self._reuse(memory, [reader.mark() for reader in (stream, *memory.readers)])

    def _free_pinned(self, memory: Memory) -> None:
        self._reuse(memory, memory.copies)

    def _reuse(self, memory: Memory, tickets: list[Ticket]) -> None:
        """What an allocator does that polls events: it holds up no stream."""
        allocator = Stream(self, "allocator")
        for ticket in tickets:
            allocator.wait(ticket)
        allocator.put(memory.poison)

    # --- operations

    def dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operator of torch with a tensor of the device among its arguments."""
        returns = func._schema.returns
        if returns and returns[0].alias_info is not None and not returns[0].alias_info.is_write:  # a view
            viewed = func(*tree_map(_raw, args), **tree_map(_raw, kwargs))
            return tree_map(lambda raw: DeviceTensor.over(raw, self), viewed)
        if func._schema.is_mutable:
            self._enqueue(func, args, kwargs, target=args[0])
            return args[0]
        shape = func(*tree_map(_meta, args), **tree_map(_meta, kwargs))
        made = self.on_device(tuple(shape.shape), shape.dtype)
        made = DeviceTensor.over(made.raw.as_strided(shape.shape, shape.stride()), self)
        pointer = self._pointer(made)
        arguments, named = tree_map(self._pointer, args), tree_map(self._pointer, kwargs)
        self.current.put(lambda: pointer.copy_(func(*arguments, **named)))
        return made

    def _enqueue(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, target: torch.Tensor) -> None:
        arguments, named = tree_map(self._pointer, args), tree_map(self._pointer, kwargs)
        self.current.put(lambda: func(*arguments, **named))
        done = self.current.mark()
        hosts = [value for value in _flat([*args, *kwargs.values()]) if type(value) is torch.Tensor]
        for host in hosts:
            memory = self.memory_of(host)
            if memory is None or not (args[2:3] == (True,) or kwargs.get("non_blocking")):
                self.run_until(done)  # pageable memory, or a copy that was not to go beside the host
            elif "note_copy" not in self.void:
                memory.copies.append(done)

    def _pointer(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        raw = _raw(value)
        memory = self.memory_of(raw)
        return raw if memory is None else memory.unowned(raw)

    # --- torch's names

    @contextmanager
    def active(self) -> Iterator["Simulator"]:
        """A block in which torch's CUDA is this simulator."""
        torch._C._ensureCUDADeviceGuardSet()  # as FakeTensorMode does: a tensor "on cuda" needs no driver
        with pytest.MonkeyPatch.context() as patch, _Functions(self):
            patch.setattr(torch.cuda, "Stream", lambda device: Stream(self, "side"))
            patch.setattr(torch.cuda, "Event", lambda **options: Event(self, **options))
            patch.setattr(torch.cuda, "stream", self._used)
            patch.setattr(torch.cuda, "current_stream", lambda device=None: self.current)
            patch.setattr(torch.cuda, "default_stream", lambda device=None: self.default)
            patch.setattr(torch.cuda, "current_device", lambda: 0)
            yield self

    @contextmanager
    def _used(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before


class _Functions(TorchFunctionMode):
    """The functions of torch that ask for a device before any tensor is there to say that it is simulated."""

    def __init__(self, simulator: Simulator) -> None:
        super().__init__()
        self._simulator = simulator

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        handler = getattr(self, f"_{func.__name__}", None) if hasattr(func, "__name__") else None
        answer = NotImplemented if handler is None else handler(*args, **kwargs)
        return func(*args, **kwargs) if answer is NotImplemented else answer

    def _empty(self, *size, dtype=torch.float32, device="cpu", pin_memory=False):
        size = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
        if torch.device(device).type == "cuda":
            return self._simulator.on_device(size, dtype)
        return self._simulator.pinned(size, dtype) if pin_memory else NotImplemented

    def _empty_like(self, value, *, device, pin_memory):
        if not pin_memory:
            return NotImplemented
        like = torch.empty_like(_meta(value))
        return self._simulator.pinned(tuple(like.shape), like.dtype).as_strided(like.shape, like.stride())

    def _pin_memory(self, value):
        pinned = self._simulator.pinned(tuple(value.shape), value.dtype)
        return pinned.copy_(value)

    def _to(self, value, device=None, *, non_blocking=False, **rest):
        if not isinstance(device, str | torch.device) or torch.device(device).type != "cuda":
            return NotImplemented
        if isinstance(value, DeviceTensor):
            return value
        made = self._simulator.on_device(tuple(value.shape), value.dtype)
        return made.copy_(value, non_blocking=non_blocking)

    def ___setitem__(self, value, index, source):
        if not isinstance(value, DeviceTensor):
            return NotImplemented
        target, given = (self._simulator._pointer(part) for part in (value, source))
        self._simulator.current.put(lambda: target.__setitem__(index, given))
        return None


def _flat(values: Any) -> Iterator[Any]:
    if isinstance(values, list | tuple):
        for value in values:
            yield from _flat(value)
    else:
        yield values


def _raw(value: Any) -> Any:
    return value.raw if isinstance(value, DeviceTensor) else value


def _meta(value: Any) -> Any:
    return _raw(value).to("meta") if isinstance(value, torch.Tensor) else value
