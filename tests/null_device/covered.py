"""Runs the cases of the pairwise cover, those of a method in one process."""

from pathlib import Path
from typing import Any

from null_device.cases import Case, pairwise_cases
from null_device.workers import Worker, train


def cases_of(ranks: int) -> list[Case]:
    """The cover's cases on so many ranks, those of a method side by side."""
    return sorted((case for case in pairwise_cases() if case.ranks == ranks), key=lambda case: case.method)


class Runs:
    """Results of cases; the first case of a method that is asked for runs them all."""

    def __init__(self, worker: Worker, stores: Path) -> None:
        self._worker, self._stores = worker, stores
        self._results: dict[Case, Any] = {}

    def __getitem__(self, case: Case) -> Any:
        """What worker.py says of the case."""
        if case not in self._results:
            alike = [other for other in cases_of(case.ranks) if other.method == case.method]
            self._results |= train(self._worker, alike, self._stores)
        return self._results[case]
