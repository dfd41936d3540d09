"""Are Triton's kernels right, as its interpreter runs them here?"""

import json
import subprocess
import sys

import pytest
from conftest import REPOSITORY

pytest.importorskip("triton")

TOLERANCE = {"bfloat16": 8e-3, "float16": 1e-3}  # of a student's gradient, rounded to its type


@pytest.fixture(scope="module")
def measured() -> dict[str, list[float]]:
    """Each case's errors, from a process of its own: Triton reads TRITON_INTERPRET when kernels are defined."""
    command = [sys.executable, "-m", "tests.unit.kernels.triton_interpreted"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("loss", ["kl", "ctkd", "zscore_kl", "dkd", "topk_kl"])
def test_interpreted_kernels_equal_their_references(loss: str, measured: dict[str, list[float]]) -> None:
    cases = {name: errors for name, errors in measured.items() if name.split("-")[0] == loss}
    assert len(cases) == 6
    for name, (value, student, temperature) in cases.items():
        assert value < 2e-5, name
        assert student < TOLERANCE.get(name.split("-")[-1], 1e-4), name
        assert temperature < 1e-3, name


@pytest.mark.parametrize("check", ["deterministic", "number"])
def test_bits_are_the_same_twice_and_for_a_number_as_temperature(check: str, measured: dict[str, list[float]]) -> None:
    assert max(measured[check]) == 0


def test_a_label_or_index_that_is_no_class_makes_the_loss_nan_and_nothing_else(
    measured: dict[str, list[float]],
) -> None:
    assert measured["no class"] == [1, 1, 1, 1]


def test_random_words_are_those_of_the_host(measured: dict[str, list[float]]) -> None:
    assert measured["philox"] == [0, 0, 0]


def test_one_graph_without_breaks(measured: dict[str, list[float]]) -> None:
    assert max(measured["compiled"]) == 0
