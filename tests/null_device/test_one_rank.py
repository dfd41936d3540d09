"""Every method with every pair of settings runs on CUDA, and a steady step keeps the host waiting for nothing."""

from pathlib import Path

import pytest

from null_device.cases import Case
from null_device.checks import faults_of
from null_device.covered import Runs, cases_of
from null_device.workers import Worker


@pytest.fixture(scope="module")
def runs(worker: Worker, stores: Path) -> Runs:
    return Runs(worker, stores)


@pytest.mark.parametrize("case", cases_of(1), ids=str)
def test_steady_steps_wait_for_nothing(case: Case, runs: Runs) -> None:
    assert faults_of(case, runs[case]) == []
