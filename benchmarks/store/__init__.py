"""Are a store's rows as fast as plain memory and plain files? Reader and writer against what one would use instead."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from benchmarks._shared.benchmark import Benchmark
from benchmarks._shared.imagenet import CLASSES, SAMPLES
from benchmarks._shared.show import show_figures, show_pairs
from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0, Range


@dataclass(frozen=True)
class Store(Benchmark):
    """Reader and writer against h5py, compressed HDF5, np.memmap and plain writes; and what opening a store costs."""

    work: Annotated[
        Path | None,
        About("Folder on the disk to measure; a temporary folder is made in it (default: the system's).", free=True),
    ] = None
    rows: Annotated[int, About("Rows of 1000 float16 logits that are read.")] = 196_608
    shard_rows: Annotated[int, About("Rows of a shard.", ABOVE_0)] = 65_536
    classes: int = field(init=False, default=CLASSES)
    batch: Annotated[int, About("Rows of a gather and of a write.", ABOVE_0)] = 256
    repeats: Annotated[int, About("Pairs of windows.", ABOVE_0)] = 5
    views: Annotated[
        int, About(f"Views of {SAMPLES:,} rows of the store that is opened (sparse files).", ABOVE_0, free=True)
    ] = 50

    def run(self) -> dict[str, Any]:
        """Pairs of readers, warm and cold, and of writers; figures of opening."""
        Range(least=self.batch).check("--rows", self.rows)
        from benchmarks.store.measure import measure_store
        from benchmarks.store.memory import measure_open

        with tempfile.TemporaryDirectory(dir=self.work) as temporary:
            figures = measure_store(self, Path(temporary))
            opened = measure_open(Path(temporary), views=self.views, rows=SAMPLES)
        titles = {
            "warm": "random rows, warm, rows/s, medians",
            "cold": "one pass in random order, cold, rows/s, medians",
            "write": "writing until durable, rows/s, medians",
        }
        pairs = {kind: show_pairs(title, ("store", "other"), getattr(figures, kind)) for kind, title in titles.items()}
        show_figures(f"opening {self.views} views of {SAMPLES:,} rows", opened)
        return {"settings": self.settings(), **pairs, "disk_bytes": figures.disk_bytes, "open": opened}
