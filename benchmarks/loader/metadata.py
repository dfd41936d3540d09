"""What a rank pays for ImageNet's samples before a pixel is decoded."""

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks._shared.clock import CPU
from benchmarks._shared.imagenet import CLASSES, POLICY, SAMPLES
from benchmarks._shared.pairs import seconds_of
from benchmarks._shared.pixels import endless_batches
from benchmarks._shared.process import own
from pipeline.data.backend import BackendOptions, Source
from pipeline.data.backends.synthetic import SyntheticBackend, synthetic_index
from pipeline.data.index import Index, load_index
from pipeline.data.order import permutation
from pipeline.data.plan import Plan
from pipeline.data.policy import get_policy


def measure_metadata() -> dict[str, float]:
    """Plan, order, opening the index, first batch, memory.

    Measured in a process of its own, whose memory nothing else has touched.
    """
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        path = Path(folder) / "train.index.h5"
        _generated_index().save(path)
        return process.submit(_metadata, path).result()


def _metadata(path: Path) -> dict[str, float]:
    before, started = own("status", "VmRSS"), time.perf_counter()
    index = load_index(path)
    opened_s = time.perf_counter() - started
    options = BackendOptions(resolution=224, num_threads=1, max_batch=256)
    with endless_batches(SyntheticBackend, Source(index), options, CPU) as batches:
        next(batches)
        first_s = time.perf_counter() - started
        resident_kb = own("status", "VmRSS") - before
    return {
        "samples": len(index),
        "order_s": _median_s(lambda: permutation(len(index), 0, 1)),
        "plan_us_per_sample": _plan_us(index),
        "open_index_s": opened_s,
        "first_batch_s": first_s,
        "metadata_mb": resident_kb / 1024,
    }


def _plan_us(index: Index) -> float:
    plan, count, batch = Plan(get_policy(POLICY), 0), 100_000, 256
    at = [permutation(len(index), 0, 0)[first : first + batch] for first in range(0, count, batch)]

    def draw() -> None:
        for rows in at:
            plan.rows(index.ids[rows], np.zeros(len(rows)), index.widths[rows], index.heights[rows])

    return _median_s(draw) / (len(at) * batch) * 1e6


def _median_s(action: Callable[[], object]) -> float:
    return statistics.median(seconds_of(action) for _ in range(5))


def _generated_index() -> Index:
    """ImageNet's number of rows with paths of ImageNet's length."""
    index = synthetic_index(SAMPLES, CLASSES)
    name = np.frombuffer(b"n01440764/n01440764_10026.JPEG", np.uint8)
    ends = np.arange(len(index) + 1, dtype=np.int64) * len(name)
    return replace(index, path_bytes=np.tile(name, len(index)), path_ends=ends)
