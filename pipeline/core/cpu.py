"""How many cores this process may use."""

import os


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
