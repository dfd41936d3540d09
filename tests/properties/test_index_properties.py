"""Indexes of any samples: there and back through a file, and through subsets."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.index import Index, SampleRecord, load_index, pack_index

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
RECORDS = st.lists(
    st.builds(
        SampleRecord,
        path=NAMES,
        label=st.integers(0, 999),
        width=st.integers(1, 100_000),
        height=st.integers(1, 100_000),
        size_bytes=st.integers(0, 2**50),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=40)
@given(records=RECORDS, classes=st.lists(NAMES, max_size=5), data=st.data())
def test_there_and_back(records: list[SampleRecord], classes: list[str], data: st.DataObject) -> None:
    index = pack_index(Path("/root"), tuple(classes), records)
    rows = sorted(data.draw(st.sets(st.integers(0, len(records) - 1))))
    with tempfile.TemporaryDirectory() as folder:
        for number, item in enumerate((index, index.subset(np.array(rows, np.int64)))):
            item.save(Path(folder) / f"{number}.h5")
            assert_holds(load_index(Path(folder) / f"{number}.h5"), item, records)


def assert_holds(loaded: Index, saved: Index, records: list[SampleRecord]) -> None:
    assert (loaded.fingerprint, loaded.classes, loaded.num_parent) == (saved.fingerprint, saved.classes, len(records))
    assert np.array_equal(loaded.ids, saved.ids)
    for row, sample_id in enumerate(loaded.ids.tolist()):
        record = records[sample_id]
        assert loaded.path_of(sample_id) == str(Path("/root") / record.path)
        found = (loaded.labels[row], loaded.widths[row], loaded.heights[row], loaded.sizes[row])
        assert found == (record.label, record.width, record.height, record.size_bytes)
