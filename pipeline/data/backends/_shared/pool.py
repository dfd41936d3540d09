"""Requests decoded by a pool of threads, a few images a task, in order, some requests ahead of the consumer."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

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
    waiting: deque[tuple[torch.Tensor, list[Future[list[int]]]]] = deque()
    try:
        for rows in requests:
            images = empty_images(len(rows), options)
            tasks = [pool.submit(decode, rows.part(part), images[part]) for part in task_slices(rows.ids)]
            waiting.append((images, tasks))
            if len(waiting) > options.prefetch:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        for task in chain.from_iterable(tasks for _, tasks in waiting):
            task.cancel()


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
