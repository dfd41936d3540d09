"""What each step of a job asks of the device: counted around a method of the program, in the process that runs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from null_device.device import Counts, counts, difference


@dataclass
class Step:
    """Counts of one step.

    Attributes:
        begins: of the process, as the step's call began.
        call: of the call.
        iteration: from this call to the next: the step, its data, metrics and log; None after the last.
    """

    begins: Counts
    call: Counts
    iteration: Counts | None = None


@contextmanager
def counted_calls(kind: type, name: str = "__call__") -> Iterator[list[Step]]:
    """A list that grows by a record for every call of the method `name` of `kind`, whatever the instance."""
    steps: list[Step] = []
    original = getattr(kind, name)

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        begins = counts()
        if steps:
            steps[-1].iteration = difference(steps[-1].begins, begins)
        result = original(self, *arguments, **options)
        steps.append(Step(begins, difference(begins, counts())))
        return result

    setattr(kind, name, call)
    try:
        yield steps
    finally:
        setattr(kind, name, original)
