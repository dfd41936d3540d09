"""Readers and writers in pairs.

Every row of a generated view is 1000 float16 logits. Warm figures come from the page cache; for cold ones the kernel is
asked to drop the files' pages before each window, and the bytes that then came from the disk are counted.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from benchmarks._shared.pairs import Pairs, alternate, say, seconds_of
from benchmarks._shared.process import drop_page_cache, own
from benchmarks._shared.stores import manifest_of, write_shard
from benchmarks.store import Store
from stores.file_system import StoreIO
from stores.index_file import create_store
from stores.layout import ShardKey, shard_keys
from stores.manifest import Manifest
from stores.reader import open_store

Gather = Callable[[np.ndarray], object]
Reader = Callable[[], AbstractContextManager[Gather]]

_VIEW = 0
_SLOWER = 16  # windows of what decompresses rows are this much shorter


@dataclass
class StoreFigures:
    """What was measured.

    Attributes:
        warm: readers in pairs, rows/s, all files in the page cache.
        cold: readers in pairs, rows/s of opening and one pass in random order, where the page cache can be dropped.
        disk_bytes: bytes that a cold pass of the pairs' first reader took from the disk, by pair's name.
        write: writer in pairs, rows/s until the bytes are durable.
    """

    warm: list[Pairs] = field(default_factory=list)
    cold: list[Pairs] = field(default_factory=list)
    disk_bytes: dict[str, int] = field(default_factory=dict)
    write: list[Pairs] = field(default_factory=list)


def measure_store(settings: Store, work: Path) -> StoreFigures:
    """Everything, in files under `work`."""
    figures = StoreFigures()
    say(f"writing {settings.rows:,} rows four ways")
    logits = np.random.default_rng(0).normal(0, 3, (settings.rows, settings.classes)).astype("<f2")
    manifest = manifest_of(settings.rows, settings.classes, settings.shard_rows)
    figures.write = _measure_writer(settings, manifest, logits, work)
    files = _Files(settings, manifest, work, logits)
    figures.warm = _measure_warm(files)
    _measure_cold(files, figures)
    return figures


class _Files:
    """The same rows four ways: a store, one plain array, one HDF5 dataset, one of compressed chunks."""

    def __init__(self, settings: Store, manifest: Manifest, work: Path, logits: np.ndarray) -> None:
        self.settings, self.store = settings, work / "store"
        self.raw, self.plain, self.chunked = work / "raw", work / "plain.h5", work / "chunked.h5"
        self.few = max(settings.batch, settings.rows // _SLOWER)
        create_store(self.store, manifest, None)
        for key in shard_keys(_VIEW, settings.rows, settings.shard_rows):
            _write_rows(self.store, key, manifest, settings.batch, logits)
        logits.tofile(self.raw)
        with h5py.File(self.plain, "w") as file:
            file["logits"] = logits
        with h5py.File(self.chunked, "w") as file:
            options = {"chunks": (1, settings.classes), "compression": "gzip", "shuffle": True}
            file.create_dataset("logits", data=logits[: self.few], **options)

    @contextmanager
    def reader(self, io: StoreIO, *, check_rows: bool = True, warmed: bool = False) -> Iterator[Gather]:
        """Ours, into one buffer that is used again and again; its files read once from beginning to end before."""
        opened = open_store(self.store, io=io, check_rows=check_rows)
        if warmed:
            opened.warm(_VIEW)
        out = {"logits": np.empty((self.settings.batch, self.settings.classes), "<f2")}
        yield lambda ids: opened.gather(_VIEW, ids, out=out)
        opened.close()

    @contextmanager
    def memmap(self) -> Iterator[Gather]:
        """One file of rows, indexed as numpy does it."""
        array = np.memmap(self.raw, "<f2", mode="r", shape=(self.settings.rows, self.settings.classes))
        yield array.__getitem__

    @contextmanager
    def h5py(self, path: Path) -> Iterator[Gather]:
        """h5py's own indexing, which wants ids in increasing order; rows are put into the caller's order."""
        with h5py.File(path, "r", locking=False) as file:
            dataset = file["logits"]
            num = len(dataset)

            def gather(ids: np.ndarray) -> np.ndarray:
                unique, places = np.unique(ids % num, return_inverse=True)
                return dataset[unique][places]

            yield gather

    def rate(self, gather: Gather, rows: int) -> float:
        """Rows per second over random batches."""
        batch = self.settings.batch
        ids = np.random.default_rng().permutation(self.settings.rows)[:rows]
        batches = [ids[start : start + batch] for start in range(0, len(ids) - batch + 1, batch)]
        return len(batches) * batch / seconds_of(lambda: [gather(chosen) for chosen in batches])


def _measure_warm(files: _Files) -> list[Pairs]:
    rows, few = files.settings.rows, files.few
    results = []
    with (
        files.reader("mmap", check_rows=False) as mapped,
        files.reader("mmap") as mapped_checked,
        files.reader("pread", check_rows=False) as pread,
        files.reader("pread") as pread_checked,
        files.memmap() as memmap,
        files.h5py(files.plain) as plain,
        files.h5py(files.chunked) as chunked,
    ):
        compared: list[tuple[str, Gather, Gather, int]] = [
            ("mmap / np.memmap", mapped, memmap, rows),
            ("mmap, checked / np.memmap", mapped_checked, memmap, rows),
            ("mmap / h5py", mapped, plain, rows),
            ("mmap, checked / h5py", mapped_checked, plain, rows),
            ("pread / h5py", pread, plain, rows),
            ("pread, checked / h5py", pread_checked, plain, rows),
            ("mmap / h5py, gzip", mapped, chunked, few),
        ]
        for name, ours, other, other_rows in compared:
            files.rate(ours, rows), files.rate(other, few)
            both = partial(files.rate, ours, rows), partial(files.rate, other, other_rows)
            results.append(alternate(name, "rows/s", *both, files.settings.repeats))
    return results


def _measure_cold(files: _Files, figures: StoreFigures) -> None:
    readers: dict[str, Reader] = {
        "mmap, checked": partial(files.reader, "mmap"),
        "pread, checked": partial(files.reader, "pread"),
        "warm, then pread, checked": partial(files.reader, "pread", warmed=True),
    }
    shards, raw_bytes = sorted(files.store.rglob("rows-*.h5")), files.raw.stat().st_size
    plain = partial(_cold_pass, files, files.memmap, [files.raw], [])
    for name, reader in readers.items():
        taken: list[int] = []
        ours = partial(_cold_pass, files, reader, shards, taken)
        pairs = alternate(f"{name} / np.memmap", "rows/s, cold", ours, plain, files.settings.repeats)
        if min(taken) < raw_bytes // 2:
            say(f"{name}: left out: the page cache could not be dropped here ({min(taken):,} bytes came from the disk)")
            continue
        figures.cold.append(pairs)
        figures.disk_bytes[pairs.name] = min(taken)


def _cold_pass(files: _Files, reader: Reader, paths: list[Path], taken: list[int]) -> float:
    def read() -> None:
        with reader() as gather:
            files.rate(gather, files.settings.rows)
        taken.append(own("io", "read_bytes:") - before)

    gc.collect()  # a page that somebody maps cannot be dropped
    drop_page_cache(paths)
    before = own("io", "read_bytes:")
    return files.settings.rows / seconds_of(read)


def _measure_writer(settings: Store, manifest: Manifest, logits: np.ndarray, work: Path) -> list[Pairs]:
    key = ShardKey(_VIEW, 0, min(settings.rows, settings.shard_rows))
    store, plain, rows = work / "written", work / "plain", logits[: key.stop]

    def rate(write: Callable[[], None], path: Path) -> float:
        rate = len(rows) / seconds_of(write)
        path.unlink()
        return rate

    ours = partial(rate, partial(_write_rows, store, key, manifest, settings.batch, rows), key.path(store))
    theirs = partial(rate, partial(_write_plain, plain, settings.batch, rows), plain)
    ours(), theirs()
    return [alternate("writer / pwrite + fsync", "rows/s", ours, theirs, 2 * settings.repeats)]


def _write_rows(store: Path, key: ShardKey, manifest: Manifest, batch: int, logits: np.ndarray) -> None:
    """One shard of the view's `logits`."""
    zeros = np.zeros(batch, "<i4")

    def columns(part: slice) -> dict[str, np.ndarray]:
        beside = zeros[: part.stop - part.start]
        return {"logits": logits[part], "label": beside, "plan_crc": beside.view("<u4")}

    write_shard(store, key, manifest, batch, columns)


def _write_plain(path: Path, batch: int, rows: np.ndarray) -> None:
    """The least that makes the same bytes durable: rows and twelve bytes beside each."""
    beside = np.zeros((len(rows), 3), "<u4")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        offset = 0
        for start in range(0, len(rows), batch):
            offset += os.pwrite(descriptor, rows[start : start + batch].data, offset)
        os.pwrite(descriptor, beside.data, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
