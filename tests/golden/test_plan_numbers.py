"""Numbers that recorded runs and stores rest on: words, orders, boxes, flips, row checksums.

To record a new version: `python tests/golden/test_plan_numbers.py` writes the JSON file that is compared here.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core import parts
from pipeline.core.rng import Stream, counters, derive_seed, philox
from pipeline.data import policies
from pipeline.data.order import permutation
from pipeline.data.plan import PLAN_VERSION, Plan
from pipeline.data.policy import get_policy

FILE = Path(__file__).with_name("plan_numbers.json")
WHAT_IT_MEANS = (
    "drawn numbers have changed: stores, traces and runs of earlier versions cannot be replayed by this program.\n"
    "If that is not meant, find the change. If it is, raise PLAN_VERSION in pipeline/data/plan.py and record anew:\n"
    f"    python tests/golden/{Path(__file__).name}"
)
IMAGENET = 1_281_167
SIZES = [(500, 375), (375, 500), (1, 300), (300, 1), (1200, 60), (40, 900), (6000, 4000), (96, 96)]


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).tobytes()).hexdigest()


def record_words() -> dict[str, Any]:
    words = philox(counters((np.arange(1000), 5, 6, 7)), (2**32 - 1, Stream.VIEW))
    seeds = [derive_seed(3, stream, 1, 2) for stream in Stream]
    return {"first": words[:2].tolist(), "sha256": sha256(words), "derived": [str(seed) for seed in seeds]}


def record_order(run_seed: int, epoch: int) -> dict[str, Any]:
    ids = permutation(IMAGENET, run_seed, epoch)
    return {"first": ids[:8].tolist(), "sha256": sha256(ids)}


def record_plan(name: str) -> dict[str, Any]:
    """64 samples over all sizes in three views, and a checksum over 20,000."""
    policy, num = get_policy(name), 20_000
    ids = np.arange(num) * 7919 % (1 << 33)
    width, height = (np.array(column)[np.arange(num) % len(SIZES)] for column in zip(*SIZES, strict=True))
    rows = Plan(policy, plan_seed=11).rows(ids, np.arange(num) % 3, width, height)
    return {
        "policy": policy.to_json(),
        "boxes": rows.boxes[:64].tolist(),
        "flips": rows.flips[:64].astype(int).tolist(),
        "crc": rows.crc()[:64].tolist(),
        "sha256": sha256(rows.crc()),
    }


def record_all() -> dict[str, Any]:
    return {
        "plan_version": PLAN_VERSION,
        "words": record_words(),
        "orders": {f"{seed}/{epoch}": record_order(seed, epoch) for seed, epoch in ((0, 0), (0, 1), (42, 299))},
        "plans": {name: record_plan(name) for name in parts.names(policies)},
    }


@pytest.fixture(scope="module")
def frozen() -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return recorded


def test_plan_version(frozen: dict[str, Any]) -> None:
    assert frozen["plan_version"] == PLAN_VERSION, (
        f"the numbers were recorded for another version: run {Path(__file__)}"
    )


def test_words(frozen: dict[str, Any]) -> None:
    assert record_words() == frozen["words"], WHAT_IT_MEANS


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (0, 1), (42, 299)])
def test_orders(seed: int, epoch: int, frozen: dict[str, Any]) -> None:
    assert record_order(seed, epoch) == frozen["orders"][f"{seed}/{epoch}"], WHAT_IT_MEANS


@pytest.mark.parametrize("name", parts.names(policies))
def test_plans(name: str, frozen: dict[str, Any]) -> None:
    assert name in frozen["plans"], f"policy {name} is new: record its numbers: run {Path(__file__).name}"
    drawn, kept = record_plan(name), frozen["plans"][name]
    for what in ("policy", "boxes", "flips", "crc", "sha256"):
        assert drawn[what] == kept[what], f"{name}: {what}: {WHAT_IT_MEANS}"


def test_no_recorded_policy_has_vanished(frozen: dict[str, Any]) -> None:
    assert sorted(frozen["plans"]) == parts.names(policies), WHAT_IT_MEANS


if __name__ == "__main__":
    FILE.write_text(json.dumps(record_all(), indent=None, separators=(",", ":")) + "\n", encoding="utf-8")
