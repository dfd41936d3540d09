"""Processes of one job: who am I, who shares my machine, what did all of us agree on. Plain torch.distributed.

Two groups: the default one moves gradients (NCCL on CUDA, gloo on CPU); a gloo group carries control messages (flags,
small JSON objects, barriers), so that nothing of the kind ever waits for a device.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from pipeline.config import Device
from pipeline.core.command import own_rank
from pipeline.core.cpu import decoder_threads
from pipeline.core.errors import ConfigError, RefluxError

_Told = TypeVar("_Told")
_POLL_S = 0.02
_TIMEOUT = timedelta(minutes=30)  # a rank may be reading a slow disk; a dead one is noticed by its agent at once


@dataclass(frozen=True)
class World:
    """This process's place in the job.

    Attributes:
        rank: 0 .. size - 1; rank 0 writes files and talks to people.
        size: number of ranks.
        device: where this rank's networks live.
        threads: decoder threads that this rank may run.
    """

    rank: int
    size: int
    device: torch.device
    threads: int
    control: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this rank writes and talks."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier(group=self.control)

    def main_first(self, action: Callable[[], _Told]) -> _Told:
        """Run `action` on the main rank while the others wait; every rank gets its JSON value, or its RefluxError."""
        found, failure = None, None
        if self.is_main:
            try:
                found = action()
            except RefluxError as error:
                failure = error
        told: tuple[_Told, list[Any] | None] = self.gather(
            [found, [str(failure), failure.exit_code] if failure else None]
        )[0]
        if failure is not None:
            raise failure
        if told[1] is not None:
            message, code = told[1]
            raise (ConfigError if code == ConfigError.exit_code else RefluxError)(message)
        return told[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's JSON value, in rank order, on every rank."""
        if self.size == 1:
            return [value]
        payload = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(payload)]), group=self.control)
        longest = int(max(lengths))
        padded = torch.cat((payload, torch.zeros(longest - len(payload), dtype=torch.uint8)))
        received = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(received, padded, group=self.control)
        return [json.loads(bytes(part[: int(length)].tolist())) for part, length in zip(received, lengths, strict=True)]

    def gather_rows(self, row: torch.Tensor) -> torch.Tensor:
        """Every rank's 1-D tensor, (size, K), on every rank, on the CPU."""
        row = row.cpu()
        if self.size == 1:
            return row[None]
        rows = [torch.empty_like(row) for _ in range(self.size)]
        dist.all_gather(rows, row, group=self.control)
        return torch.stack(rows)

    def stack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Every rank's tensor of one shape, (size, ...), on its device; does not wait for the device."""
        if self.size == 1:
            return tensor[None]
        received = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(received, tensor.contiguous())
        return torch.stack(received)

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all ranks, in place, on its device; does not wait for the device."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor


class AgreedFlag:
    """A flag that every rank sees rise at the same step, without a wait: each step starts a reduction of the local
    flags over the control group and reads that of the step before.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._pending: tuple[Any, torch.Tensor] | None = None

    def update(self, raised: bool) -> bool:
        """Give this rank's flag at a step boundary; returns whether any rank's was up one boundary earlier."""
        if self._world.size == 1:
            return raised
        agreed = self.drain()
        flag = torch.tensor([int(raised)], dtype=torch.int32)
        work = dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._world.control, async_op=True)
        self._pending = (work, flag)
        return agreed

    def drain(self) -> bool:
        """Wait for the last reduction, before the group is used for something else or closed."""
        if self._pending is None:
            return False
        work, flag = self._pending
        self._pending = None
        work.wait()
        return bool(flag.item())


def start_world(device: Device, threads: int | None) -> World:
    """Join the job that torchrun described in the environment; without torchrun, a job of one process.

    Raises:
        ConfigError: CUDA asked for and not there, or more local ranks than devices.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), own_rank()
    place = _pick_device(device)
    on_cuda = place.type == "cuda"
    if size == 1:
        return World(0, 1, place, threads or decoder_threads(1, launching=on_cuda))
    dist.init_process_group(
        "nccl" if on_cuda else "gloo",
        store=_store_of_this_attempt(rank, size),
        rank=rank,
        world_size=size,
        timeout=_TIMEOUT,
        device_id=place if on_cuda else None,
    )
    world = World(rank, size, place, 1, dist.new_group(backend="gloo", timeout=_TIMEOUT))
    mine = [socket.gethostname(), sorted(os.sched_getaffinity(0))]
    sharing = sum(other == mine for other in world.gather(mine))
    return World(rank, size, place, threads or decoder_threads(sharing, launching=on_cuda), world.control)


def _store_of_this_attempt(rank: int, size: int) -> Store:
    """The job's key-value store, without what an attempt before this one wrote there.

    torchrun keeps one store over all restarts of its workers, and torch looks up the ranks' addresses under the same
    names each time: whoever came up before rank 0 would find the address of a dead process (seen with torch 2.15).
    Nodes count their restarts apart, so rank 0 draws the attempt's name and tells it to each rank that asks now.
    """
    store: Store = next(rendezvous("env://", rank, size, timeout=_TIMEOUT))[0]
    attempt = _ask_for_attempt(store, rank) if rank else _name_attempt(store, size)
    return PrefixStore(f"reflux/{attempt}", store)


def _ask_for_attempt(store: Store, rank: int) -> str:
    question = uuid.uuid4().hex  # an answer to it can only come from a rank 0 that lives now
    store.set(f"reflux/question/{rank}", question)
    attempt: str = store.get(f"reflux/answer/{question}").decode()
    store.set(f"reflux/joined/{attempt}/{rank}", "")
    return attempt


def _name_attempt(store: Store, size: int) -> str:
    attempt, missing = uuid.uuid4().hex, set(range(1, size))
    end = time.monotonic() + _TIMEOUT.total_seconds()
    while missing:
        for rank in sorted(missing):
            if store.check([f"reflux/question/{rank}"]):
                question = store.get(f"reflux/question/{rank}").decode()
                store.set(f"reflux/answer/{question}", attempt)
        missing = {rank for rank in missing if not store.check([f"reflux/joined/{attempt}/{rank}"])}
        if time.monotonic() > end:
            raise RefluxError(
                f"ranks {sorted(missing)[:8]} have not come up within {_TIMEOUT}: see their machines' logs"
            )
        time.sleep(_POLL_S)
    return attempt


def stop_world(world: World) -> None:
    """Leave the job."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def _pick_device(device: Device) -> torch.device:
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ConfigError(
            "--device cuda: this machine shows no CUDA device to torch. Use --device cpu, or see nvidia-smi"
        )
    if device == "cpu" or not has_cuda:
        return torch.device("cpu")
    local_rank, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local_rank >= count:
        raise ConfigError(
            f"every rank needs a CUDA device of its own: local rank {local_rank}, {count} devices.\n"
            f"Start with --nproc_per_node={count}, or use --device cpu."
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
