"""Streams run late and in the worst order, and batches, stored rows, checkpoints and DALI's pixels come out whole.

Each hand-over is also run without one of the calls that hold it together, and then some order must spoil it: else the
simulator would prove nothing.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dali_stand_in import GpuPipeline, pixels_of
from stream_simulator import DEVICE, Simulator

from pipeline.core.errors import RefluxError
from pipeline.data.backend import (
    Backend,
    BackendOptions,
    DaliDecoding,
    Pixels,
    Source,
    empty_images,
    open_backend,
    resolve_backend,
)
from pipeline.data.backends import dali
from pipeline.data.backends._shared.dali_memory import ImageMemory
from pipeline.data.index import Index
from pipeline.data.loader import Loader, Request
from pipeline.data.order import MicroBatch
from pipeline.data.plan import Plan, PlanRows
from pipeline.data.policy import get_policy
from pipeline.devices import streams
from pipeline.engine.step import LateMetrics
from pipeline.jobs.checkpoint import CheckpointWriter, find_latest

SEEDS = range(16)
SIDE, BATCH, BATCHES = 4, 3, 8
OPTIONS = BackendOptions(
    resolution=SIDE, num_threads=1, max_batch=BATCH, device="cuda:0", prefetch=3, dali=DaliDecoding("mixed")
)
Seen = list[tuple[np.ndarray, dict[str, torch.Tensor]]]


@pytest.fixture(autouse=True)
def _no_stream_of_another_simulator() -> Iterator[None]:
    streams._copy_stream.cache_clear()
    yield
    streams._copy_stream.cache_clear()


def spoiled(job: Callable[[Simulator], bool], *void: str) -> list[int]:
    """The seeds for which `job` finds something wrong, with some calls void."""
    found = []
    for seed in SEEDS:
        streams._copy_stream.cache_clear()
        with Simulator(seed, void).active() as simulator, pytest.MonkeyPatch.context() as patch:
            patch.setattr(dali, "_dali", lambda: None)  # a stand-in needs none
            patch.setattr(dali, "_replay_pipeline", lambda feed, options: GpuPipeline(simulator, feed, options))
            if not job(simulator):
                found.append(seed)
    return found


class PinnedBackend(Backend):
    """Images on the host, as the backends that decode there deliver them."""

    def __init__(self) -> None:
        pass

    def stream(self, requests: Iterable[PlanRows]) -> Generator[Pixels, None, None]:
        for rows in requests:
            images = empty_images(len(rows), OPTIONS)
            images.copy_(torch.stack([pixels_of(int(one), SIDE) for one in rows.ids]))
            yield Pixels(images)

    def pixel_recipe(self) -> dict[str, Any]:
        return {"backend": "pinned"}

    def close(self) -> None:
        pass


class Rows:
    """Stored teacher rows of a request, pinned: each sample's number and a half."""

    def __call__(self, request: Request) -> Future[dict[str, torch.Tensor]]:
        rows = torch.empty((len(request.rows), 5), dtype=torch.float32, pin_memory=True)
        rows.copy_(torch.from_numpy(request.rows.ids)[:, None] + 0.5)
        fetched: Future[dict[str, torch.Tensor]] = Future()
        fetched.set_result({"logits": rows})
        return fetched

    def close(self) -> None:
        pass


def train(simulator: Simulator, index: Index, backend: Backend) -> Seen:
    """A training loop as the device sees it: every batch is read by the current stream, long after it was loaded."""
    loader = Loader(index, Plan(get_policy("imagenet_train"), 0), backend, DEVICE, fetch=Rows())
    parts = (index.ids[first : first + BATCH] for first in range(0, BATCH * BATCHES, BATCH))
    requests = loader.plan_requests(MicroBatch(step, 0, 0, ids) for step, ids in enumerate(parts))
    seen: Seen = []
    late: list[streams.HostCopy[torch.Tensor]] = []
    with closing(loader.load(requests)) as batches:
        for batch in batches:
            on_device = {"images": batch.images, "labels": batch.labels, "ids": batch.ids, **batch.stored}
            seen.append((batch.rows.ids, {name: value.clone() for name, value in on_device.items()}))
            late.append(streams.copy_to_host(batch.ids.sum()))
            del batch, on_device
            if len(late) > 1:
                late.pop(0).wait()
    simulator.run_all()
    return seen


def is_right(index: Index, seen: Seen) -> bool:
    """Whether each batch has its own images, labels, ids and rows."""
    if len(seen) != BATCHES:
        return False
    for ids, found in seen:
        expected = {
            "images": torch.stack([pixels_of(int(one), SIDE) for one in ids]),
            "labels": torch.from_numpy(index.labels[ids].astype(np.int64)),
            "ids": torch.from_numpy(ids),
            "logits": torch.from_numpy(ids)[:, None].expand(-1, 5) + 0.5,
        }
        if not all(torch.equal(found[name].raw, value.to(found[name].dtype)) for name, value in expected.items()):
            return False
    return True


def test_copied_ahead_a_batch_and_its_stored_rows_arrive_whole(photo_index: Index) -> None:
    assert spoiled(lambda simulator: is_right(photo_index, train(simulator, photo_index, PinnedBackend()))) == []


@pytest.mark.parametrize("call", ["wait_event", "record_stream", "note_copy"])
def test_copied_ahead_without_one_of_its_calls_a_batch_is_spoiled(photo_index: Index, call: str) -> None:
    assert spoiled(lambda simulator: is_right(photo_index, train(simulator, photo_index, PinnedBackend())), call)


def train_on_dali(simulator: Simulator, index: Index, options: BackendOptions = OPTIONS) -> Seen:
    """The same with the real DALI backend, over a stand-in of DALI's own pipeline."""
    with closing(dali.DaliBackend(Source(index), options)) as backend:
        return train(simulator, index, backend)


def test_pixels_of_dali_are_those_of_their_batch(photo_index: Index) -> None:
    assert spoiled(lambda simulator: is_right(photo_index, train_on_dali(simulator, photo_index))) == []


@pytest.mark.parametrize("call", ["wait_event", "record_stream"])
def test_pixels_of_dali_without_one_of_the_calls_are_spoiled(photo_index: Index, call: str) -> None:
    assert spoiled(lambda simulator: is_right(photo_index, train_on_dali(simulator, photo_index)), call)


def test_pixels_that_dali_does_not_wait_for_are_spoiled(photo_index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GpuPipeline, "waits", False)
    assert spoiled(lambda simulator: is_right(photo_index, train_on_dali(simulator, photo_index)))


def former_receive(memory: ImageMemory, pipeline: GpuPipeline) -> torch.Tensor:
    """The hand-over as it was: torch copies on its own stream, and DALI does not know when."""
    (images,) = pipeline.share_outputs(torch.cuda.current_stream().cuda_stream)
    pixels = images.as_torch().clone()
    pipeline.release_outputs()
    return pixels


def test_the_former_hand_over_showed_later_pixels_under_a_batchs_labels(
    photo_index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageMemory, "receive", former_receive)
    shows_others = []

    def job(simulator: Simulator) -> bool:
        seen = train_on_dali(simulator, photo_index)
        for ids, found in seen:
            shown = found["images"].raw[:, 0, 0, 0].tolist()
            shows_others.append(shown != ids.tolist() and 0xFF not in shown)
            assert found["labels"].raw.tolist() == photo_index.labels[ids].tolist(), "the labels are its own"
        return is_right(photo_index, seen)

    assert spoiled(job)
    assert any(shows_others), "not only poison: a whole other batch"


def test_gray_images_and_pieces_decoded_apart_keep_the_order(
    photo_index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GpuPipeline, "unreadable", frozenset({4, 13}))
    gray = replace(OPTIONS, on_bad_image="gray")

    def job(simulator: Simulator) -> bool:
        seen = train_on_dali(simulator, photo_index, gray)
        return [batch["images"].raw[:, 0, 0, 0].tolist() for _, batch in seen[1:5]] == [
            [3, 128, 5],
            [6, 7, 8],
            [9, 10, 11],
            [12, 128, 14],
        ]

    assert spoiled(job) == []
    assert spoiled(job, "wait_event")


def test_dali_decoding_on_the_cpu_delivers_pinned_images_and_never_touches_the_device(photo_index: Index) -> None:
    reason = resolve_backend("dali").missing()
    if reason is not None:
        pytest.skip(reason)
    plan = Plan(get_policy("imagenet_train"), 0)
    rows = plan.rows(photo_index.ids[:9], np.zeros(9), photo_index.widths[:9], photo_index.heights[:9])
    on_cpu = replace(OPTIONS, device="cpu", dali=DaliDecoding("cpu"))
    for_cuda, images = replace(on_cpu, device="cuda:0"), []
    with Simulator(0).active() as simulator:
        for options in (on_cpu, for_cuda):
            with closing(open_backend("dali", Source(photo_index), options)) as backend:
                parts = [rows.part(slice(first, first + BATCH)) for first in range(0, 9, BATCH)]
                images.append([pixels.images for pixels in backend.stream(parts)])
        assert all(simulator.memory_of(image) is not None for image in images[1]), "they are pinned"
        assert len(simulator.streams) == 1, "no stream but the default one"
    assert torch.equal(torch.cat(images[0]), torch.cat(images[1]))


def test_decoding_goes_on_while_a_step_runs(photo_index: Index) -> None:
    """The copy stream, for which DALI's waits, never waits for the step."""

    def job(simulator: Simulator) -> bool:
        with closing(dali.DaliBackend(Source(photo_index), OPTIONS)) as backend:
            loader = Loader(photo_index, Plan(get_policy("imagenet_train"), 0), backend, DEVICE)
            parts = (MicroBatch(step, 0, 0, np.arange(step * 3, step * 3 + 3)) for step in range(BATCHES))
            with closing(loader.load(loader.plan_requests(parts))) as batches:
                kept = [batch.images.clone() for batch in batches]
        simulator.run_all(but=(simulator.default,))
        others = [stream for stream in simulator.streams if stream.name in ("DALI", "side")]
        return len(kept) == BATCHES and len(others) == 2 and not any(stream.queue for stream in others)

    assert spoiled(job) == []


def test_metrics_are_read_when_they_have_arrived() -> None:
    def job(simulator: Simulator) -> bool:
        late, weight = LateMetrics(), torch.empty((4,), dtype=torch.float32, device="cuda").fill_(1)
        read: list[float] = []
        for step in range(1, 6):
            late.push(step, {"loss": weight.sum()})
            weight.mul_(2)
            read += [metrics["loss"] for _, metrics in late.pop(keep=1)]
        return read == [4, 8, 16, 32]

    assert spoiled(job) == []
    with pytest.raises(RefluxError, match="not finite"):
        spoiled(job, "synchronize")


def test_a_checkpoint_is_of_its_step_though_the_next_one_goes_on(tmp_path: Path) -> None:
    def job(simulator: Simulator) -> bool:
        weight = torch.empty((4, 2), dtype=torch.float32, device="cuda").fill_(5)
        writer = CheckpointWriter(tmp_path / str(id(simulator)), 1)
        writer.save({"version": 1, "step": 5, "module": {"weight": weight}}, is_best=False)
        weight.fill_(6)  # the next step, enqueued behind the copy
        del weight
        writer.wait()
        state, _ = find_latest(tmp_path / str(id(simulator)))
        return state is not None and torch.equal(state["module"]["weight"], torch.full((4, 2), 5.0))

    assert spoiled(job) == []
    assert spoiled(job, "synchronize")


def test_the_default_stream_is_told_from_the_copy_stream() -> None:
    with Simulator(0).active():
        assert streams.on_default_stream(DEVICE)
        with streams.copy_stream(DEVICE).used():
            assert not streams.on_default_stream(DEVICE)
