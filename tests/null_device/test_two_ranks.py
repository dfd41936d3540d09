"""The same on two ranks, each with a device of its own; gloo in the place of NCCL, which is not modelled."""

from pathlib import Path

import pytest

from null_device.cases import Case
from null_device.checks import faults_of
from null_device.covered import Runs, cases_of
from null_device.workers import Worker


@pytest.fixture(scope="module")
def runs(worker: Worker, stores: Path) -> Runs:
    return Runs(worker, stores)


@pytest.mark.parametrize("case", cases_of(2), ids=str)
def test_steady_steps_wait_for_gloo_alone(case: Case, runs: Runs) -> None:
    assert faults_of(case, runs[case]) == []
