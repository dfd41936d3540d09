"""Requests decoded by a pool of threads, a few images a task, in order, some requests ahead of the consumer."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from pipeline.data.backend import BackendOptions, Pixels, empty_images
from pipeline.data.plan import PlanRows

_IMAGES_PER_TASK = 8

Decode = Callable[[PlanRows, torch.Tensor], list[int]]


def stream_in_pool(
    requests: Iterable[PlanRows], *, pool: ThreadPoolExecutor, options: BackendOptions, decode: Decode
) -> Generator[Pixels, None, None]:
    """The `stream` of a backend whose threads work without the GIL; see `Backend`.

    Args:
        requests: plan rows, drawn in the consumer's thread.
        pool: the decoder threads.
        options: resolution, prefetch.
        decode: fills (b, R, R, 3) uint8 with the pixels of b rows, in a thread of the pool; returns the ids that it
            replaced by gray. Neighbouring rows of one id come in one call, to be decoded once.
    """
    waiting: deque[_Work] = deque()
    try:
        for rows in requests:
            waiting.append(_Work(rows, pool, options, decode))
            if len(waiting) > options.prefetch:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for work in waiting:
            work.cancel()


class _Work:
    """A request in the pool."""

    def __init__(self, rows: PlanRows, pool: ThreadPoolExecutor, options: BackendOptions, decode: Decode) -> None:
        self._images = empty_images(len(rows), options)
        self._tasks: list[Future[list[int]]] = [
            pool.submit(decode, rows.part(part), self._images[part]) for part in task_slices(rows.ids)
        ]

    def result(self) -> Pixels:
        return Pixels(self._images, tuple(sample_id for task in self._tasks for sample_id in task.result()))

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


def task_slices(ids: np.ndarray) -> list[slice]:
    """Cut rows into tasks of eight, or a few more where the cut would part neighbours of one id."""
    changes = np.flatnonzero(ids[1:] != ids[:-1]) + 1
    slices, first = [], 0
    while first < len(ids):
        at = np.searchsorted(changes, first + _IMAGES_PER_TASK)
        stop = int(changes[at]) if at < len(changes) else len(ids)
        slices.append(slice(first, stop))
        first = stop
    return slices
