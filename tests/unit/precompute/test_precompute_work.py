"""Units of work cover every shard once, over jobs and ranks, whatever is there already."""

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from precompute.work import Unit, cut_units, deal, from_json, missing_units, to_json, without_sealed
from stores.layout import ShardKey, shard_keys

_JOBS = st.tuples(
    st.integers(1, 9), st.integers(1, 300), st.integers(1, 100), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5)
)


@given(_JOBS)
def test_parts_and_ranks_share_every_shard_of_every_view(job: tuple[int, int, int, int, int, int]) -> None:
    num_views, num_rows, shard_rows, views_per_decode, parts, ranks = job
    views = range(3, 3 + num_views)
    units = cut_units(views, num_rows=num_rows, shard_rows=shard_rows, views_per_decode=views_per_decode)
    done = [
        key
        for number in range(1, parts + 1)
        for rank in range(ranks)
        for unit in deal(deal(units, number - 1, parts), rank, ranks)
        for key in unit.keys
    ]
    expected = [key for view in views for key in shard_keys(view, num_rows, shard_rows)]
    assert Counter(done) == Counter(expected)
    assert all(len(unit.views) <= views_per_decode for unit in units)
    assert from_json(to_json(units)) == units


def test_views_become_complete_one_after_the_other() -> None:
    units = cut_units(range(3), num_rows=10, shard_rows=4, views_per_decode=1)
    assert [unit.views[0] for unit in units] == sorted(unit.views[0] for unit in units)


def test_what_is_sealed_is_left_out(tmp_path: Path) -> None:
    units = cut_units(range(5), num_rows=10, shard_rows=6, views_per_decode=2)
    for key in (ShardKey(1, 0, 6), ShardKey(4, 0, 6), ShardKey(2, 6, 10)):
        key.path(tmp_path).parent.mkdir(parents=True, exist_ok=True)
        key.path(tmp_path).touch()
    assert missing_units(units, tmp_path) == [
        Unit((0,), 0, 6),
        Unit((0, 1), 6, 10),
        Unit((2, 3), 0, 6),
        Unit((3,), 6, 10),
        Unit((4,), 6, 10),
    ]
    assert without_sealed(Unit((4,), 0, 6), tmp_path) is None


def test_parts_do_not_move_when_another_part_has_done_some(tmp_path: Path) -> None:
    """Cut from all units, not from the missing ones: a job that starts late must not leave a unit to nobody."""
    units = cut_units(range(2), num_rows=40, shard_rows=10, views_per_decode=1)
    second = deal(units, 1, 2)
    for unit in deal(units, 0, 2)[:3]:
        for key in unit.keys:
            key.path(tmp_path).parent.mkdir(parents=True, exist_ok=True)
            key.path(tmp_path).touch()
    assert missing_units(second, tmp_path) == second
