"""Every method with every combination of settings: `make null`. An hour or two; `--part 1/8` is an eighth of it.

Says what it does, prints each fault as it is found, and ends with 1 if there was one.
"""

import argparse
import queue
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

from null_device.build import why_not
from null_device.cases import Case, all_cases
from null_device.checks import faults_of
from null_device.workers import Worker, fill_stores, train

_AT_ONCE = 16  # cases of one process


def main() -> None:
    """Run this part's cases in as many workers as asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="1/1", help="K/N: one of N parts, each with something of all (default: 1/1)")
    parser.add_argument("--jobs", type=int, default=2, help="workers side by side (default: 2)")
    arguments = parser.parse_args()
    reason = why_not()
    if reason is not None:
        sys.exit(reason)
    number, total = map(int, arguments.part.split("/"))
    cases = sorted(all_cases(), key=_mixed)[number - 1 :: total]
    with tempfile.TemporaryDirectory() as folder:
        num_bad = _run(cases, Path(folder), arguments.jobs)
    sys.exit(f"{num_bad} of {len(cases):,} cases failed" if num_bad else 0)


def _run(cases: Sequence[Case], folder: Path, num_workers: int) -> int:
    """The number of cases that failed."""
    num_bad, num_done, started = 0, 0, time.monotonic()
    idle: queue.Queue[Worker] = queue.Queue()
    with ExitStack() as stack, ThreadPoolExecutor(num_workers) as threads:
        for number in range(num_workers):
            place = folder / f"worker-{number}"
            place.mkdir()
            idle.put(stack.enter_context(Worker(place)))
        stores = fill_stores(idle.queue[0])
        jobs = [threads.submit(_run_alike, alike, stores, idle) for alike in _alike(cases)]
        for job in as_completed(jobs):
            found = job.result()
            num_bad, num_done = num_bad + sum(map(bool, found.values())), num_done + len(found)
            for case, lines in found.items():
                for line in lines:
                    print(f"\n{case}: {line}")
            pace = (time.monotonic() - started) / num_done
            left = int(pace * (len(cases) - num_done) / 60)
            print(f"\r{num_done:,}/{len(cases):,} cases, {num_bad} bad, {left} min left  ", end="", flush=True)
    print()
    return num_bad


def _mixed(case: Case) -> int:
    """An order in which every N-th case is a fair sample."""
    return zlib.crc32(str(case).encode())


def _alike(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """Cases of one method on as many ranks, some at a time."""

    def kind(case: Case) -> tuple[str, int]:
        return case.method, case.ranks

    for _, group in groupby(sorted(cases, key=kind), kind):
        alike = list(group)
        yield from (alike[start : start + _AT_ONCE] for start in range(0, len(alike), _AT_ONCE))


def _run_alike(cases: list[Case], stores: Path, idle: queue.Queue[Worker]) -> dict[Case, list[str]]:
    worker = idle.get()
    try:
        results = train(worker, cases, stores)
    except AssertionError as error:
        return {case: [f"one of {len(cases)} run together failed: {error}"] for case in cases}
    finally:
        idle.put(worker)
    return {case: faults_of(case, results[case]) for case in cases}


if __name__ == "__main__":
    main()
