"""What a rank pays for a store of fifty ImageNet views: time to open it, and memory of its own.

The files are sparse: their headers are real, and their rows are zeros that take no space.
"""

import gc
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks._shared.imagenet import CLASSES
from benchmarks._shared.process import own
from benchmarks._shared.stores import manifest_of
from stores.file_system import StoreIO
from stores.index_file import create_store
from stores.layout import shard_keys, view_folder
from stores.reader import open_store
from stores.shard_file import create_shard_file

_SHARD_ROWS = 65_536


def measure_open(work: Path, *, views: int, rows: int) -> dict[str, float]:
    """Figures of both ways of reading, each in a process of its own."""
    store = work / "sparse"
    _make_sparse_store(store, views, rows)
    figures: dict[str, float] = {"views": views, "rows": rows}
    ways: tuple[StoreIO, ...] = ("mmap", "pread")
    for io in ways:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            figures.update(process.submit(_open, store, io, rows).result())
    return figures


def _make_sparse_store(store: Path, views: int, rows: int) -> None:
    manifest = manifest_of(rows, CLASSES, _SHARD_ROWS)
    create_store(store, manifest, None)
    for view in range(views):
        view_folder(store, view).mkdir(parents=True)
        for key in shard_keys(view, rows, manifest.shard_rows):
            create_shard_file(key.path(store), key, manifest, made_with={})


def _open(store: Path, io: StoreIO, rows: int) -> dict[str, float]:
    before, started = _private_mb(), time.perf_counter()
    reader = open_store(store, io=io, check_rows=False)
    views = reader.complete_views()
    opened_s, opened_mb = time.perf_counter() - started, _private_mb() - before
    reader.open_view(0)
    first_s = time.perf_counter() - started
    ids = np.random.default_rng(0).integers(0, rows, 256)
    reader.gather(0, ids)
    one_mb = _private_mb() - before
    for view in views:
        reader.gather(view, ids)
    gc.collect()
    figures = {"open_s": opened_s, "open_and_first_view_s": first_s, "open_mb": opened_mb, "one_view_mb": one_mb}
    figures["all_views_read_mb"] = _private_mb() - before
    return {f"{io}_{name}": value for name, value in figures.items()}


def _private_mb() -> float:
    """Memory that only this process has and that the kernel cannot take back: no pages of files."""
    return own("smaps_rollup", "Private_Dirty") / 1024
