"""How a request is cut into tasks of the decoder threads."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.backends._shared.pool import task_slices


def test_rows_of_different_ids_are_cut_by_eight() -> None:
    assert task_slices(np.arange(20)) == [slice(0, 8), slice(8, 16), slice(16, 20)]


def test_a_longer_run_is_one_task() -> None:
    assert task_slices(np.repeat([5, 6], [30, 3])) == [slice(0, 30), slice(30, 33)]


def test_no_rows_are_no_task() -> None:
    assert task_slices(np.zeros(0, np.int64)) == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12)), max_size=12))
def test_tasks_cover_all_rows_and_end_at_the_first_change_from_eight_on(runs: list[tuple[int, int]]) -> None:
    ids = np.array([sample_id for sample_id, length in runs for _ in range(length)], np.int64)
    slices = task_slices(ids)
    assert np.concatenate([np.zeros(0, np.int64), *(ids[part] for part in slices)]).tolist() == ids.tolist()
    for part in slices:
        assert part.stop == len(ids) or ids[part.stop] != ids[part.stop - 1]
        too_late = ids[part.start + 8 : part.stop] != ids[part.start + 7 : part.stop - 1]
        assert not too_late.any(), "a cut was possible earlier"
