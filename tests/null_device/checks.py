"""What must hold of a job on a null device."""

from collections.abc import Collection, Mapping
from typing import Any

from null_device.cases import WARM_UP, Case
from null_device.device import Counts

_WAITS = ("syncs", "pageable")
# of torch's pools: threads fill them at their own pace, so that a late one is no fault, and one in most steps is
_ALLOCATIONS = ("mallocs", "host_allocs", "frees")
_NEVER = ("refused", "overwritten")
_OF_GLOO = ("syncs",)  # which copies through the host in the place of NCCL


def faults_of(case: Case, result: Mapping[str, Any]) -> list[str]:
    """One line for each thing that must not be in a run of `case`; see `faults`."""
    found = faults(result, allowed=_OF_GLOO if case.ranks > 1 else ())
    expected = case.micro_batches if case.teacher == "graph" else 0
    launches = [seen.get("graph_launches", 0) for seen in result["calls"][WARM_UP:]]
    if any(num != expected for num in launches):
        found.append(f"steady steps launch {launches} graphs, not {expected} each")
    return found


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
    waits = [
        f"step {number}: {seen[name]} {name}"
        for number, seen in enumerate(steady, WARM_UP + 1)
        for name in _WAITS
        if seen.get(name) and name not in allowed
    ]
    allocations = {name: [seen.get(name, 0) for seen in steady] for name in _ALLOCATIONS if name not in allowed}
    often = [f"steady steps: {seen} {name}" for name, seen in allocations.items() if 2 * seen.count(0) < len(seen)]
    return waits + often + [f"the run: {seen} {name}" for name in _NEVER if (seen := result["total"].get(name))]
