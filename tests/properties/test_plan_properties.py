"""Plans of any policy, image size, id, view and seed."""

import struct
import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.plan import Plan
from pipeline.data.policies._shared.centre_crop import CentreCrop
from pipeline.data.policies._shared.random_resized_crop import RandomResizedCrop
from pipeline.data.policy import Policy, from_json

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 20_000)
SAMPLES = st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**31), SIDES, SIDES), min_size=1, max_size=30)


def ranges(least: float, greatest: float) -> st.SearchStrategy[tuple[float, float]]:
    ends = st.tuples(st.floats(least, greatest), st.floats(least, greatest))
    return ends.map(lambda pair: (min(pair), max(pair)))


POLICIES: st.SearchStrategy[Policy] = st.one_of(
    st.builds(CentreCrop, st.floats(0.01, 1.0)),
    st.builds(RandomResizedCrop, ranges(0.001, 1.0), ranges(0.05, 20.0), st.floats(0, 1)),
)


@given(policy=POLICIES, seed=SEEDS, samples=SAMPLES)
def test_boxes_lie_inside(policy: Policy, seed: int, samples: list[tuple[int, int, int, int]]) -> None:
    ids, views, widths, heights = np.array(samples, np.int64).T
    top, left, height, width = Plan(policy, seed).rows(ids, views, widths, heights).boxes.T
    assert np.all((top >= 0) & (left >= 0) & (height >= 1) & (width >= 1))
    assert np.all((top + height <= heights) & (left + width <= widths))


@given(policy=POLICIES, seed=SEEDS, samples=SAMPLES, data=st.data())
def test_a_row_is_its_own(
    policy: Policy, seed: int, samples: list[tuple[int, int, int, int]], data: st.DataObject
) -> None:
    columns = np.array(samples, np.int64)
    positions = np.array(data.draw(st.lists(st.integers(0, len(samples) - 1), min_size=1, max_size=10)))
    plan = Plan(policy, seed)
    whole, part = plan.rows(*columns.T), plan.rows(*columns[positions].T)
    assert np.array_equal(whole.boxes[positions], part.boxes)
    assert np.array_equal(whole.flips[positions], part.flips)
    assert np.array_equal(whole.crc()[positions], part.crc())


@given(policy=POLICIES)
def test_json_there_and_back(policy: Policy) -> None:
    assert from_json(policy.to_json()) == policy


@given(policy=POLICIES, seed=SEEDS, samples=SAMPLES)
def test_row_checksums_are_zlibs_of_id_view_box_and_flip(
    policy: Policy, seed: int, samples: list[tuple[int, int, int, int]]
) -> None:
    rows = Plan(policy, seed).rows(*np.array(samples, np.int64).T)
    each = zip(rows.ids, rows.views, rows.boxes, rows.flips, strict=True)
    assert rows.crc().tolist() == [zlib.crc32(struct.pack("<qq4i?", *one[:2], *one[2], one[3])) for one in each]
