"""What must hold of a job on a null device."""

from collections.abc import Collection, Mapping
from typing import Any

from null_device.cases import WARM_UP, Case
from null_device.device import Counts

# what makes the host wait for the device, or may
_WAITS = ("syncs", "pageable", "mallocs", "host_allocs", "frees")
_NEVER = ("refused", "overwritten")
# gloo, in NCCL's place, waits for its copies through the host, and its threads keep buffers for as long as they take
_OF_GLOO = ("syncs", "mallocs", "host_allocs")


def faults_of(case: Case, result: Mapping[str, Any]) -> list[str]:
    """One line for each thing that must not be in a run of `case`; see `faults`."""
    return faults(result, allowed=_OF_GLOO if case.ranks > 1 else ())


def faults(result: Mapping[str, Any], *, allowed: Collection[str] = ()) -> list[str]:
    """One line for each thing that must not be: the job failed, or a steady step waited, or the device was misused.

    Args:
        result: of worker.py.
        allowed: counts that a steady step may have.
    """
    if result["error"] is not None:
        return [result["error"]]
    steady: list[Counts] = result["iterations"][WARM_UP:]
    assert steady, "no step after the warm-up"
    found = [
        f"step {number}: {seen[name]} {name}"
        for number, seen in enumerate(steady, WARM_UP + 1)
        for name in _WAITS
        if seen.get(name) and name not in allowed
    ]
    return found + [f"the run: {result['total'][name]} {name}" for name in _NEVER if result["total"].get(name)]
