"""Requests decoded by a pool of threads, a few images a task, in order, some requests ahead of the consumer."""

from abc import abstractmethod
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

import numpy as np
import torch

from pipeline.data.backend import Backend, BackendOptions, Pixels, empty_images
from pipeline.data.plan import PlanRows

_IMAGES_PER_TASK = 8


class PooledBackend(Backend):
    """A backend whose threads work without the GIL: those of `_pool`, which its `__init__` makes."""

    _options: BackendOptions
    _pool: ThreadPoolExecutor

    @classmethod
    def preference(cls, on_cuda: bool) -> int:
        """1: taken where nothing faster fits."""
        return 1

    def stream(self, requests: Iterable[PlanRows]) -> Generator[Pixels, None, None]:
        """See `Backend`. Requests are drawn in the consumer's thread."""
        waiting: deque[tuple[torch.Tensor, list[Future[list[int]]]]] = deque()
        try:
            for rows in requests:
                images = empty_images(len(rows), self._options)
                parts = task_slices(rows.ids)
                tasks = [self._pool.submit(self._decode, rows.part(part), images[part]) for part in parts]
                waiting.append((images, tasks))
                if len(waiting) > self._options.prefetch:
                    yield _finished(*waiting.popleft())
            while waiting:
                yield _finished(*waiting.popleft())
        finally:
            for task in chain.from_iterable(tasks for _, tasks in waiting):
                task.cancel()

    def close(self) -> None:
        """See `Backend`."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    @abstractmethod
    def _decode(self, rows: PlanRows, images: torch.Tensor) -> list[int]:
        """Fill (b, R, R, 3) uint8 with the pixels of b rows, in a thread of the pool; return ids replaced by gray.

        Neighbouring rows of one id come in one call, to be decoded once.
        """


def _finished(images: torch.Tensor, tasks: list[Future[list[int]]]) -> Pixels:
    return Pixels(images, tuple(chain.from_iterable(task.result() for task in tasks)))


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
