"""Order, plan and backend joined: batches of views on the training device.

What is loaded is a function of the global step alone; this module holds no state that a checkpoint would need.
"""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.data.backend import Backend, Pixels
from pipeline.data.index import Index
from pipeline.data.order import MicroBatch, Order
from pipeline.data.plan import Plan, PlanRows, views_of_epoch
from pipeline.devices.streams import Sent, copy_stream

_ON_DEVICE = ("images", "labels", "ids", "stored")


@dataclass(frozen=True)
class Batch:
    """One micro-batch on the device.

    Attributes:
        step: global step (position in the evaluation order for evaluation).
        epoch: epoch, from 0.
        index: number of the micro-batch within its step.
        rows: ids, views, boxes, flips (on the host).
        images: (B, R, R, 3) uint8 on the device.
        labels: (B,) int64 on the device.
        ids: (B,) int64 on the device.
        replaced: ids of images that are gray because they could not be decoded.
        wait_s: seconds that the consumer waited for it.
        stored: the teacher's rows for these views, (B, ...) by the name of the store's field, on the device; empty
            where there are none.
    """

    step: int
    epoch: int
    index: int
    rows: PlanRows
    images: torch.Tensor
    labels: torch.Tensor
    ids: torch.Tensor
    replaced: tuple[int, ...]
    wait_s: float
    stored: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A micro-batch and its plan rows, before there are pixels."""

    micro_batch: MicroBatch
    rows: PlanRows
    labels: np.ndarray


class Fetch(Protocol):
    """Fetches what goes with a request while its pixels are decoded."""

    def __call__(self, request: Request) -> Future[dict[str, torch.Tensor]] | None:
        """Begin; None where nothing goes with it."""

    def close(self) -> None:
        """End its threads."""


@dataclass(frozen=True)
class Loader:
    """Views of one data set, by one backend, for one rank.

    Attributes:
        index: the samples.
        plan: their views.
        backend: their pixels.
        device: where batches are wanted.
        num_views: views in rotation, or None for a new one every epoch.
        fetch: begins to fetch stored teacher rows; called as soon as a request is known.
    """

    index: Index
    plan: Plan
    backend: Backend
    device: torch.device
    num_views: int | None = None
    fetch: Fetch | None = None

    def training(
        self, order: Order, *, rank: int, world_size: int, start_step: int, stop_step: int
    ) -> Generator[Batch, None, None]:
        """The micro-batches that `rank` runs from `start_step` up to (not including) `stop_step`, in order."""
        deal = order.deal(rank, world_size)
        return self.load(self.plan_requests(_dealt(order, deal, start_step, stop_step)))

    def evaluation(self, batch: int, *, rank: int, world_size: int) -> Generator[Batch, None, None]:
        """Every sample of the index once over all ranks, in batches cut at the same places for every world size."""
        starts = range(rank * batch, len(self.index), world_size * batch)
        parts = (MicroBatch(start // batch, 0, 0, self.index.ids[start : start + batch]) for start in starts)
        return self.load(self.plan_requests(parts))

    def close(self) -> None:
        """Close the backend, and end fetching."""
        self.backend.close()
        if self.fetch is not None:
            self.fetch.close()

    def plan_requests(self, micro_batches: Iterable[MicroBatch]) -> Iterator[Request]:
        """Look up sizes and draw the plan, one request per micro-batch."""
        return (self.request(micro_batch) for micro_batch in micro_batches)

    def request(self, micro_batch: MicroBatch, *, view: int | None = None) -> Request:
        """The request of one micro-batch, in its epoch's view or another one."""
        ids = micro_batch.ids
        at = self.index.rows_of(ids)
        views = views_of_epoch(micro_batch.epoch, ids, self.num_views) if view is None else np.full(len(ids), view)
        rows = self.plan.rows(ids, views, self.index.widths[at], self.index.heights[at])
        return Request(micro_batch, rows, self.index.labels[at].astype(np.int64))

    def load(self, requests: Iterator[Request]) -> Generator[Batch, None, None]:
        """The batches of any requests, in their order; requests are drawn ahead, perhaps in another thread."""
        loaded = _join(requests, self.backend, self.device, self.fetch)
        return loaded if self.device.type == "cpu" else _copy_ahead(loaded, self.device)


def normalise(
    images_BHWC: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor, memory_format: torch.memory_format
) -> torch.Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32, x * scale + offset; channels_last costs no transposition.

    One kernel on CUDA, whose multiply-add rounds once; on the CPU two operations, whose bits old runs depend on.

    Args:
        images_BHWC: pixels on the device.
        scale: (3, 1, 1) float32, 1 / (255 std) with the deviation in units of 0..1.
        offset: (3, 1, 1) float32, -mean / std.
        memory_format: channels_last or contiguous_format.
    """
    pixels = images_BHWC.permute(0, 3, 1, 2)
    scaled = torch.addcmul(offset, pixels, scale) if pixels.is_cuda else pixels * scale + offset
    return scaled.contiguous(memory_format=memory_format)


def _dealt(order: Order, deal: range, start_step: int, stop_step: int) -> Iterator[MicroBatch]:
    epoch, permuted = -1, np.zeros(0, np.int64)
    for step in range(start_step, stop_step):
        if order.epoch_of(step) != epoch:
            epoch = order.epoch_of(step)
            permuted = order.permutation(epoch)
        yield from order.micro_batches(permuted, step, deal)


def _join(
    requests: Iterator[Request], backend: Backend, device: torch.device, fetch: Fetch | None
) -> Generator[Batch, None, None]:
    """Pair each request with its pixels; requests are drawn by the backend, ahead and perhaps in its own thread."""
    drawn: deque[tuple[Request, Future[dict[str, torch.Tensor]] | None]] = deque()

    def remember() -> Iterator[PlanRows]:
        for request in requests:
            drawn.append((request, None if fetch is None else fetch(request)))
            yield request.rows

    pixels = backend.stream(remember())
    try:
        while True:
            asked = time.perf_counter()
            images = next(pixels, None)
            if images is None:
                return
            request, fetching = drawn.popleft()
            stored = {} if fetching is None else fetching.result()
            yield _batch(request, images, device, time.perf_counter() - asked, stored)
    finally:
        for _, fetching in drawn:
            if fetching is not None:
                fetching.cancel()
        pixels.close()


def _batch(
    request: Request, pixels: Pixels, device: torch.device, wait_s: float, stored: dict[str, torch.Tensor]
) -> Batch:
    labels, ids = torch.from_numpy(request.labels), torch.from_numpy(request.rows.ids)
    if device.type == "cuda":
        labels, ids = labels.pin_memory(), ids.pin_memory()
    return Batch(
        step=request.micro_batch.step,
        epoch=request.micro_batch.epoch,
        index=request.micro_batch.index,
        rows=request.rows,
        images=pixels.images,
        labels=labels,
        ids=ids,
        replaced=pixels.replaced,
        wait_s=wait_s,
        stored=stored,
    )


def _copy_ahead(batches: Generator[Batch, None, None], device: torch.device) -> Generator[Batch, None, None]:
    """Copy one batch ahead on the copy stream, so that the copy of the next runs beside the step of this one."""
    side = copy_stream(device)
    coming: deque[tuple[Batch, Sent[dict[str, Any]]]] = deque()
    with closing(batches):
        for batch in batches:
            coming.append((batch, side.send({name: getattr(batch, name) for name in _ON_DEVICE})))
            if len(coming) > 1:
                yield _arrived(*coming.popleft())
        while coming:
            yield _arrived(*coming.popleft())


def _arrived(batch: Batch, sent: Sent[dict[str, Any]]) -> Batch:
    return replace(batch, **sent.receive())
