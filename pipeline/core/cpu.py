"""How many cores this process may use, and work for all of them."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

_Task = TypeVar("_Task")
_Found = TypeVar("_Found")


def usable_cpus() -> int:
    """Cores in this process's affinity mask: what a scheduler granted, not what the machine has."""
    return len(os.sched_getaffinity(0))


def decoder_threads(num_sharing: int, *, launching: bool = False) -> int:
    """This process's share of its cores, at least one.

    Args:
        num_sharing: ranks of this machine that have the same affinity mask. A launcher that binds each rank to its own
            cores has already divided them, so that each rank shares with none (see `pipeline.devices.world`).
        launching: whether the rank launches kernels on a device: that thread is busy all the time, and has a core left
            to it.
    """
    return max(1, usable_cpus() // max(1, num_sharing) - launching)


def map_spawned(work: Callable[[_Task], _Found], tasks: Sequence[_Task], *, here: bool) -> Iterator[_Found]:
    """What `work` makes of each task, in order, by processes on all cores; in this one where they would not pay."""
    if here:
        yield from map(work, tasks)
        return
    # spawn: a forked child would inherit threads and signal handlers of a training process
    with ProcessPoolExecutor(min(usable_cpus(), len(tasks)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(work, tasks)
