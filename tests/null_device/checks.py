"""What must hold of a run on a null device."""

from collections.abc import Mapping, Sequence
from typing import Any

from null_device.cases import WARM_UP
from null_device.device import Counts

# what makes the host wait for the device, or may
_WAITS = ("syncs", "pageable", "mallocs", "host_allocs", "frees")
_NEVER = ("refused", "overwritten")


def faults(result: Mapping[str, Any], *, allowed: Sequence[str] = ()) -> list[str]:
    """One line for each thing that must not be: the run failed, or a steady step waited, or the device was misused.

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
