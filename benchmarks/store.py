"""Are a store's rows as fast as plain memory and plain files? Reader and writer against what one would use instead.

Every row of a generated view is 1000 float16 logits. Warm figures come from the page cache; for cold ones the kernel is
asked to drop the files' pages before each window, and the bytes that then came from the disk are counted.
"""

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from benchmarks.pairs import Pairs, alternate
from stores.codecs.dense_f16 import DenseF16
from stores.file_system import StoreIO
from stores.index_file import create_store
from stores.layout import ShardKey, shard_keys
from stores.manifest import Manifest
from stores.reader import open_store
from stores.records import PixelRecipe, TeacherRecord
from stores.shard import ShardWriter

Say = Callable[[str], None]
Gather = Callable[[np.ndarray], object]

_VIEW = 0
_SLOWER = 16  # windows of what decompresses rows are this much shorter


@dataclass(frozen=True)
class StoreSettings:
    """What is read and written.

    Attributes:
        rows: of the view, and of a timed window of a fast reader.
        shard_rows: rows of a shard.
        classes: logits of a row.
        batch: rows of a gather, and of a write.
        repeats: pairs.
    """

    rows: int = 196_608
    shard_rows: int = 65_536
    classes: int = 1000
    batch: int = 256
    repeats: int = 5


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


def measure_store(settings: StoreSettings, work: Path, say: Say) -> StoreFigures:
    """Everything, in files under `work`."""
    figures = StoreFigures()
    say(f"writing {settings.rows:,} rows four ways")
    logits = _logits(settings)
    figures.write = _measure_writer(settings, logits, work, say)
    files = _Files(settings, work, logits)
    figures.warm = _measure_warm(files, say)
    _measure_cold(files, figures, say)
    return figures


def _logits(settings: StoreSettings) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, (settings.rows, settings.classes)).astype("<f2")


class _Files:
    """The same rows four ways: a store, one plain array, one HDF5 dataset, one of compressed chunks."""

    def __init__(self, settings: StoreSettings, work: Path, logits: np.ndarray) -> None:
        self.settings, self.store = settings, work / "store"
        self.raw, self.plain, self.chunked = work / "raw", work / "plain.h5", work / "chunked.h5"
        manifest = create_store(self.store, _manifest(settings), None)
        for key in shard_keys(_VIEW, settings.rows, settings.shard_rows):
            _write_shard(self.store, key, manifest, settings, logits[key.start : key.stop])
        logits.tofile(self.raw)
        with h5py.File(self.plain, "w") as file:
            file["logits"] = logits
        with h5py.File(self.chunked, "w") as file:
            options = {"chunks": (1, settings.classes), "compression": "gzip", "shuffle": True}
            file.create_dataset("logits", data=logits[: self._few], **options)

    @property
    def _few(self) -> int:
        return max(self.settings.batch, self.settings.rows // _SLOWER)

    @contextmanager
    def reader(self, io: StoreIO, *, check_rows: bool) -> Iterator[Gather]:
        """Ours, into one buffer that is used again and again."""
        opened = open_store(self.store, io=io, check_rows=check_rows)
        out = {"logits": np.empty((self.settings.batch, self.settings.classes), "<f2")}
        yield lambda ids: opened.gather(_VIEW, ids, out=out)
        opened.close()

    @contextmanager
    def warmed_reader(self) -> Iterator[Gather]:
        """Ours by read calls, the files read once from beginning to end before."""
        opened = open_store(self.store, io="pread")
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

    def rate(self, gather: Gather, *, rows: int) -> float:
        """Rows per second over random batches."""
        batch = self.settings.batch
        ids = np.random.default_rng().permutation(self.settings.rows)[:rows]
        batches = [ids[start : start + batch] for start in range(0, len(ids) - batch + 1, batch)]
        started = time.perf_counter()
        for chosen in batches:
            gather(chosen)
        return len(batches) * batch / (time.perf_counter() - started)


def _measure_warm(files: _Files, say: Say) -> list[Pairs]:
    rows, repeats = files.settings.rows, files.settings.repeats
    few = max(files.settings.batch, rows // _SLOWER)
    results = []
    with (
        files.reader("mmap", check_rows=False) as mapped,
        files.reader("mmap", check_rows=True) as mapped_checked,
        files.reader("pread", check_rows=False) as pread,
        files.reader("pread", check_rows=True) as pread_checked,
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
            files.rate(ours, rows=rows), files.rate(other, rows=few)
            results.append(
                alternate(
                    name,
                    "rows/s",
                    lambda ours=ours: files.rate(ours, rows=rows),  # type: ignore[misc]
                    lambda other=other, num=other_rows: files.rate(other, rows=num),  # type: ignore[misc]
                    repeats,
                    say,
                )
            )
    return results


def _measure_cold(files: _Files, figures: StoreFigures, say: Say) -> None:
    readers: dict[str, Callable[[], AbstractContextManager[Gather]]] = {
        "mmap, checked": lambda: files.reader("mmap", check_rows=True),
        "pread, checked": lambda: files.reader("pread", check_rows=True),
        "warm, then pread, checked": files.warmed_reader,
    }
    shards, raw_bytes = sorted(files.store.rglob("rows-*.h5")), files.raw.stat().st_size
    for name, reader in readers.items():
        taken: list[int] = []
        pairs = alternate(
            f"{name} / np.memmap",
            "rows/s, cold",
            lambda reader=reader, taken=taken: _cold_pass(files, reader, shards, taken),  # type: ignore[misc]
            lambda: _cold_pass(files, files.memmap, [files.raw], []),
            files.settings.repeats,
            say,
        )
        if min(taken) < raw_bytes // 2:
            say(f"{name}: left out: the page cache could not be dropped here ({min(taken):,} bytes came from the disk)")
            continue
        figures.cold.append(pairs)
        figures.disk_bytes[pairs.name] = min(taken)


def _cold_pass(
    files: _Files, reader: Callable[[], AbstractContextManager[Gather]], paths: list[Path], taken: list[int]
) -> float:
    gc.collect()  # a page that somebody maps cannot be dropped
    drop_page_cache(paths)
    before, started = _bytes_from_disk(), time.perf_counter()
    with reader() as gather:
        files.rate(gather, rows=files.settings.rows)
    taken.append(_bytes_from_disk() - before)
    return files.settings.rows / (time.perf_counter() - started)


def _measure_writer(settings: StoreSettings, logits: np.ndarray, work: Path, say: Say) -> list[Pairs]:
    manifest = _manifest(settings)
    key = ShardKey(_VIEW, 0, min(settings.rows, settings.shard_rows))
    rows = logits[: key.stop]

    def ours() -> float:
        started = time.perf_counter()
        _write_shard(work / "written", key, manifest, settings, rows)
        rate = len(rows) / (time.perf_counter() - started)
        key.path(work / "written").unlink()
        return rate

    def plain() -> float:
        started = time.perf_counter()
        _write_plain(work / "plain", rows, settings.batch)
        rate = len(rows) / (time.perf_counter() - started)
        (work / "plain").unlink()
        return rate

    ours(), plain()
    return [alternate("writer / pwrite + fsync", "rows/s", ours, plain, 2 * settings.repeats, say)]


def _write_shard(store: Path, key: ShardKey, manifest: Manifest, settings: StoreSettings, rows: np.ndarray) -> None:
    fields = DenseF16(width=settings.classes).fields
    labels, plan_crcs = np.zeros(len(rows), "<i4"), np.zeros(len(rows), "<u4")
    with ShardWriter(store, key, manifest, fields, made_with={}) as writer:
        for start in range(0, len(rows), settings.batch):
            part = slice(start, start + settings.batch)
            writer.write(start, {"logits": rows[part], "label": labels[part], "plan_crc": plan_crcs[part]})
        writer.seal()


def _write_plain(path: Path, rows: np.ndarray, batch: int) -> None:
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


def _manifest(settings: StoreSettings) -> Manifest:
    return Manifest(
        index_fingerprint="0" * 64,
        num_rows=settings.rows,
        classes=tuple(str(label) for label in range(settings.classes)),
        policy={},
        plan_seed=0,
        plan_version=1,
        pixel_recipe=PixelRecipe(),
        teacher=TeacherRecord.from_json({}),
        codecs=(DenseF16(width=settings.classes).to_json(),),
        shard_rows=settings.shard_rows,
    )


def drop_page_cache(paths: list[Path]) -> None:
    """Ask the kernel to forget these files' pages; it does so for pages that are clean and that nobody maps."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _bytes_from_disk() -> int:
    """Bytes that this process had fetched from block devices (proc(5), io)."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes:"):
            return int(line.split()[1])
    return 0
