"""How fast stored rows reach a step that does nothing."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._shared.clock import CPU
from benchmarks._shared.imagenet import CLASSES
from benchmarks._shared.pixels import endless_batches, plan_rows
from benchmarks._shared.process import drop_page_cache
from benchmarks._shared.stores import manifest_of, write_shard
from pipeline.data.backend import BackendOptions, Source
from pipeline.data.backends.synthetic import SyntheticBackend, synthetic_index
from pipeline.data.index import Index
from pipeline.data.plan import PLAN_VERSION
from pipeline.teachers.stored import RowFetcher
from stores.codecs.dense_f16 import DenseF16
from stores.index_file import create_store
from stores.layout import shard_keys
from stores.reader import open_store

_BATCH = 256
_NOISE = 4096  # different rows


def measure_delivery(work: Path, *, num_rows: int, seconds: float) -> dict[str, float]:
    """Random rows of a dense store through fetcher and loader, beside synthetic pixels of 8 x 8; rows/s.

    "warm", and "cold" where the page cache may be dropped.
    """
    index, store = synthetic_index(num_rows, CLASSES), work / "delivery"
    _write_store(store, index)
    deliver = partial(_deliver, index, store, seconds)
    cold = {"cold": deliver()} if drop_page_cache(store.rglob("*.h5")) else {}
    return {"warm": max(deliver() for _ in range(2)), **cold}


def _deliver(index: Index, store: Path, seconds: float) -> float:
    fetch = RowFetcher(open_store(store), fields=("logits",), views=frozenset({0}), pinned=False)
    options = BackendOptions(8, 1, _BATCH)
    with endless_batches(SyntheticBackend, Source(index), options, CPU, num_views=1, fetch=fetch) as batches:
        next(batches)
        started, done = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < seconds:
            done += len(next(batches).stored["logits"])
    return done / elapsed


def _write_store(store: Path, index: Index) -> None:
    plain = manifest_of(len(index), len(index.classes), shard_rows=65536)
    manifest = replace(plain, index_fingerprint=index.fingerprint, classes=index.classes, plan_version=PLAN_VERSION)
    create_store(store, manifest, None)
    codec = DenseF16(width=len(index.classes))
    noise = np.random.default_rng(0).normal(size=(_NOISE, codec.width)).astype(np.float32)

    def columns(part: slice) -> dict[str, Any]:
        at = np.arange(part.start, part.stop)
        label, rows = index.labels[part].astype(np.int32), plan_rows(index, at, np.zeros_like(at))
        return {"label": label, "plan_crc": rows.crc(), **codec.encode(noise[: len(at)])}

    for key in shard_keys(0, len(index), manifest.shard_rows):
        write_shard(store, key, manifest, _NOISE, columns)
