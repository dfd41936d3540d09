"""Compiled networks, the demo's: inductor's real host code, and Triton's kernels compiled for sm_90."""

from pathlib import Path

import pytest

from null_device.cases import Case
from null_device.checks import faults_of
from null_device.workers import Worker, train

CASES = [
    Case("at", "online", amp="fp16", compile=True, late=True, ema=True, clip=True),
    Case("kd", "graph", amp="bf16", compile=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_steady_steps_wait_for_nothing(case: Case, worker: Worker, tmp_path: Path) -> None:
    result = train(worker, [case], tmp_path)[case]
    assert faults_of(case, result) == []
    assert result["calls"][-1]["triton"] > 10
