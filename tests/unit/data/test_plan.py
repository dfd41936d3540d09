"""The plan: one row per sample, whatever else is in the batch."""

import time
import zlib
from statistics import median

import numpy as np
import pytest

from pipeline.core import parts
from pipeline.core.errors import ConfigError
from pipeline.data import policies
from pipeline.data.plan import Plan, PlanRows, views_of_epoch
from pipeline.data.policy import get_policy

NUM = 400


def sizes(num: int = NUM) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(1, 600, num), rng.integers(1, 600, num)


def draw(name: str, ids: np.ndarray, view: int = 0, plan_seed: int = 0) -> PlanRows:
    widths, heights = sizes()
    return Plan(get_policy(name), plan_seed).rows(ids, np.full(len(ids), view), widths[ids], heights[ids])


def take(rows: PlanRows, positions: np.ndarray) -> PlanRows:
    return PlanRows(rows.ids[positions], rows.views[positions], rows.boxes[positions], rows.flips[positions])


def assert_same(first: PlanRows, second: PlanRows) -> None:
    for name in ("ids", "views", "boxes", "flips"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


@pytest.mark.parametrize("name", parts.names(policies))
def test_a_row_does_not_depend_on_its_batch(name: str) -> None:
    whole = draw(name, np.arange(NUM))
    shuffled = np.random.default_rng(1).permutation(NUM)
    assert_same(draw(name, shuffled), take(whole, shuffled))
    for ids in (np.arange(1), np.arange(7, 40), np.array([399, 0, 5])):
        assert_same(draw(name, ids), take(whole, ids))


@pytest.mark.parametrize("name", parts.names(policies))
def test_boxes_lie_inside_their_images(name: str) -> None:
    rows = draw(name, np.arange(NUM))
    widths, heights = sizes()
    top, left, height, width = rows.boxes.T
    assert rows.boxes.dtype == np.int32
    assert np.all((top >= 0) & (left >= 0) & (height >= 1) & (width >= 1))
    assert np.all((top + height <= heights) & (left + width <= widths))


@pytest.mark.parametrize("name", ["imagenet_train", "imagenet_dali_simkd"])
def test_half_of_the_rows_are_flipped_independently_of_their_boxes(name: str) -> None:
    num = 20_000
    ids, side = np.arange(num), np.full(num, 300)
    rows = Plan(get_policy(name), 5).rows(ids, np.zeros(num), side, side)
    assert abs(rows.flips.mean() - 0.5) < 4 * 0.5 / np.sqrt(num)
    for column in rows.boxes.T:
        assert abs(np.corrcoef(column, rows.flips)[0, 1]) < 4 / np.sqrt(num)


def test_views_and_plan_seeds_give_other_boxes() -> None:
    drawn = [draw("imagenet_train", np.arange(NUM), view, seed) for view, seed in ((0, 0), (1, 0), (0, 1), (1, 1))]
    for i, first in enumerate(drawn):
        for second in drawn[i + 1 :]:
            same = np.all(first.boxes == second.boxes, axis=1)
            assert same[np.minimum(*sizes()) > 100].mean() < 0.02  # tiny images have few boxes to choose from


def test_the_evaluation_view_draws_nothing() -> None:
    first = draw("imagenet_eval", np.arange(NUM), view=0, plan_seed=0)
    second = draw("imagenet_eval", np.arange(NUM), view=9, plan_seed=3)
    assert np.array_equal(first.boxes, second.boxes)
    assert not first.flips.any()


def test_the_evaluation_view_is_the_centre_224_of_256() -> None:
    rows = Plan(get_policy("imagenet_eval"), 0).rows(*(np.array([n]) for n in (0, 0, 512, 256)))
    assert rows.boxes.tolist() == [[16, 144, 224, 224]]


def test_ids_beyond_32_bits_have_their_own_rows() -> None:
    ids = np.array([1, 1 + 2**32, 1 + 2**33], np.int64)
    side = np.full(3, 500)
    rows = Plan(get_policy("imagenet_train"), 0).rows(ids, np.zeros(3), side, side)
    assert len({tuple(box) for box in rows.boxes.tolist()}) == 3


def test_views_of_an_epoch() -> None:
    ids = np.array([4, 9, 2])
    assert views_of_epoch(7, ids, None).tolist() == [7, 7, 7]
    assert views_of_epoch(7, ids, 5).tolist() == [2, 2, 2]
    assert views_of_epoch(7, ids[:0], 5).shape == (0,)


def test_no_rows_have_no_checksums() -> None:
    none, boxes = np.zeros(0, np.int64), np.zeros((0, 4), np.int32)
    assert PlanRows(none, none, boxes, none.astype(bool)).crc().shape == (0,)


def test_a_rows_crc_covers_id_view_box_and_flip() -> None:
    rows = PlanRows(np.array([3]), np.array([2]), np.array([[1, 2, 30, 40]], np.int32), np.array([True]))
    packed = np.array([3, 2], "<i8").tobytes() + np.array([1, 2, 30, 40], "<i4").tobytes() + b"\x01"
    assert rows.crc().tolist() == [zlib.crc32(packed)]


def test_a_plan_seed_beyond_32_bits_is_refused() -> None:
    with pytest.raises(ConfigError, match="plan_seed"):
        Plan(get_policy("imagenet_train"), -1)


def test_a_row_costs_at_most_five_microseconds() -> None:
    plan, num = Plan(get_policy("imagenet_train"), 0), 4096
    ids = np.arange(num)
    widths, heights = ids % 400 + 200, ids % 300 + 200

    def microseconds() -> float:
        started = time.process_time()  # not the wall clock: other programs run here too
        plan.rows(ids, np.zeros(num, np.int64), widths, heights)
        return (time.process_time() - started) / num * 1e6

    assert median(microseconds() for _ in range(7)) <= 5
