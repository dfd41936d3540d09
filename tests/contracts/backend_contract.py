"""What every backend promises. Subclass `BackendContract`, name the backend, and it is held to all of it."""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from pipeline.core.errors import BadImageError
from pipeline.data.backend import GRAY, Backend, BackendOptions, Pixels, Source, open_backend, resolve_backend
from pipeline.data.index import Index
from pipeline.data.order import Order
from pipeline.data.plan import Plan, PlanRows
from pipeline.data.policy import get_policy
from pipeline.data.scan import scan_folder

RESOLUTION = 48
VIEW = 3
FILE_DAMAGES = ("truncated", "text", "missing", "empty", "exchanged", "bad_tables")


class BackendContract:
    """The promises, as tests.

    Attributes:
        backend: the name under which the registry knows it.
        damages: ways in which `damage` can make an image unreadable; () where there is nothing to damage.
        shares_decode: whether several views of an image in a request cost one decode.
    """

    backend: ClassVar[str]
    damages: ClassVar[tuple[str, ...]] = FILE_DAMAGES
    shares_decode: ClassVar[bool] = False

    @classmethod
    def make_source(cls, index: Index, tmp_path: Path) -> Source:
        """Where the backend reads the images of `index`; `tmp_path` is there for a copy of them."""
        return Source(index)

    @classmethod
    def damage(cls, source: Source, sample_id: int, kind: str) -> None:
        """Make one image of `source` unreadable."""
        damage_file(Path(source.index.path_of(sample_id)), kind)

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _installed(cls) -> None:
        reason = resolve_backend(cls.backend).missing()
        if reason is not None:
            pytest.skip(reason)

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, photo_index: Index, tmp_path_factory: pytest.TempPathFactory) -> Source:
        return cls.make_source(photo_index, tmp_path_factory.mktemp(cls.backend))

    @pytest.fixture(scope="class")
    @classmethod
    def expected(cls, source: Source) -> torch.Tensor:
        """(N, R, R, 3): every image's pixels, decoded one at a time."""
        return torch.cat([pixels.images for pixels in cls.decode(source, cut(plan_of(source.index), 1), num_threads=1)])

    @pytest.fixture
    def own_source(self, photo_folder: Path, tmp_path: Path) -> Source:
        """A source over a copy of the images, to be damaged."""
        shutil.copytree(photo_folder, tmp_path / "photos")
        return self.make_source(scan_folder(tmp_path / "photos")[0], tmp_path)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "kind" in metafunc.fixturenames:
            metafunc.parametrize("kind", metafunc.cls.damages)

    @classmethod
    def open(cls, source: Source, **options: Any) -> Backend:
        return open_backend(cls.backend, source, options_of(**options))

    @classmethod
    def decode(cls, source: Source, requests: Iterable[PlanRows], **options: Any) -> list[Pixels]:
        backend = cls.open(source, **options)
        try:
            return list(backend.stream(requests))
        finally:
            backend.close()

    def test_images_are_contiguous_uint8_nhwc_batches(self, source: Source) -> None:
        requests = cut(plan_of(source.index), 10)
        for pixels, rows in zip(self.decode(source, requests), requests, strict=True):
            assert pixels.images.shape == (len(rows), RESOLUTION, RESOLUTION, 3)
            assert pixels.images.dtype == torch.uint8
            assert pixels.images.is_contiguous()
            assert pixels.replaced == ()

    @pytest.mark.parametrize(("size", "num_threads", "prefetch"), [(1, 2, 3), (7, 1, 1), (7, 3, 2), (72, 2, 3)])
    def test_pixels_do_not_depend_on_batch_threads_and_prefetch(
        self, source: Source, expected: torch.Tensor, size: int, num_threads: int, prefetch: int
    ) -> None:
        requests = cut(plan_of(source.index), size)
        decoded = self.decode(source, requests, num_threads=num_threads, prefetch=prefetch)
        assert torch.equal(torch.cat([pixels.images for pixels in decoded]), expected)

    def test_pixels_do_not_depend_on_the_order_of_requests(self, source: Source, expected: torch.Tensor) -> None:
        order = np.random.default_rng(0).permutation(len(source.index))
        decoded = self.decode(source, cut(take(plan_of(source.index), order), 11))
        assert torch.equal(torch.cat([pixels.images for pixels in decoded]), expected[torch.from_numpy(order)])

    def test_a_stream_may_start_at_any_step(self, source: Source, expected: torch.Tensor) -> None:
        requests = cut(plan_of(source.index), 9)
        for start in (1, 5):
            decoded = self.decode(source, requests[start:])
            assert torch.equal(torch.cat([pixels.images for pixels in decoded]), expected[start * 9 :])

    @pytest.mark.parametrize("world_size", [1, 2, 3])
    def test_ranks_see_what_one_process_sees(self, source: Source, expected: torch.Tensor, world_size: int) -> None:
        order = Order(source.index.ids, run_seed=5, micro_batch=4, num_micro_batches=6)
        permuted = order.permutation(0)
        for rank in range(world_size):
            dealt = [order.micro_batches(permuted, step, order.deal(rank, world_size)) for step in range(2)]
            ids = [micro_batch.ids for step in dealt for micro_batch in step]
            decoded = self.decode(source, [plan_of(source.index, part) for part in ids])
            for pixels, part in zip(decoded, ids, strict=True):
                assert torch.equal(pixels.images, expected[torch.from_numpy(part)])

    def test_requests_may_differ_in_length(self, source: Source, expected: torch.Tensor) -> None:
        ends = np.cumsum([5, 1, 16, 2, 16, 3])
        requests = [take(plan_of(source.index), part) for part in np.split(np.arange(ends[-1]), ends[:-1])]
        decoded = self.decode(source, requests, max_batch=16)
        assert [len(pixels.images) for pixels in decoded] == [5, 1, 16, 2, 16, 3]
        assert torch.equal(torch.cat([pixels.images for pixels in decoded]), expected[: ends[-1]])

    def test_a_sample_may_come_twice_in_a_request(self, source: Source) -> None:
        rows = plan_of(source.index, np.array([4, 4, 9]))
        other = replace(rows, boxes=np.array([[0, 0, 20, 20], [10, 10, 30, 20], [0, 0, 40, 48]], np.int32))
        together = self.decode(source, [rows, other])[1].images
        apart = self.decode(source, cut(other, 1))
        assert torch.equal(together, torch.cat([pixels.images for pixels in apart]))

    @pytest.mark.parametrize("num_threads", [1, 3])
    def test_several_views_of_an_image_in_one_request_are_those_of_requests_of_their_own(
        self, source: Source, num_threads: int
    ) -> None:
        few = np.array([3, 50, 7, 8, 71])
        together, apart = views_of(source.index, few, range(4)), [views_of(source.index, few, [v]) for v in range(4)]
        decoded = self.decode(source, [together, *apart], num_threads=num_threads)
        expected = torch.stack([pixels.images for pixels in decoded[1:]], dim=1).flatten(0, 1)
        assert torch.equal(decoded[0].images, expected)
        assert len({image.numpy().tobytes() for image in expected}) == 20

    def test_several_views_cost_one_decode(self, source: Source) -> None:
        if not self.shares_decode:
            pytest.skip("decodes every view, or decodes nothing")
        rows = views_of(source.index, source.index.ids, range(8))
        rows = replace(rows, boxes=np.tile(np.array([[0, 0, 12, 12]], np.int32), (len(rows), 1)))
        by_image = np.arange(len(rows))
        by_view = by_image.reshape(-1, 8).T.ravel()
        seconds = {"image": [], "view": []}
        backend = self.open(source, num_threads=1, max_batch=len(rows))
        for _ in range(4):
            for order, positions in (("image", by_image), ("view", by_view)):
                started = time.perf_counter()
                list(backend.stream([take(rows, positions)]))
                seconds[order].append(time.perf_counter() - started)
        backend.close()
        assert min(seconds["view"]) > 2 * min(seconds["image"]), "the same rows and crops, eight times the decodes"

    def test_a_bad_image_is_gray_in_all_its_views_and_in_no_other(self, own_source: Source, kind: str) -> None:
        rows = views_of(own_source.index, np.array([24, 25, 26]), range(4))
        expected = self.decode(own_source, [rows])[0].images
        self.damage(own_source, 25, kind)
        pixels = self.decode(own_source, [rows], on_bad_image="gray")[0]
        assert pixels.replaced == (25,) * 4
        assert torch.all(pixels.images[4:8] == GRAY)
        assert torch.equal(pixels.images[:4], expected[:4])
        assert torch.equal(pixels.images[8:], expected[8:])

    def test_a_batch_that_was_kept_is_never_overwritten(self, source: Source) -> None:
        requests = cut(plan_of(source.index), 6) * 3
        backend, kept, copies = self.open(source, prefetch=2), [], []
        for pixels in backend.stream(requests):
            kept.append(pixels.images)
            copies.append(pixels.images.clone())
        backend.close()
        assert all(torch.equal(image, copy) for image, copy in zip(kept, copies, strict=True))

    def test_a_flip_is_the_mirror_of_the_unflipped_row(self, source: Source) -> None:
        rows = plan_of(source.index)
        plain, mirrored = (
            torch.cat([pixels.images for pixels in self.decode(source, cut(replace(rows, flips=flips), 8))])
            for flips in (np.zeros(len(rows), bool), np.ones(len(rows), bool))
        )
        assert torch.equal(plain.flip(2), mirrored)
        assert not torch.equal(plain, mirrored)

    def test_a_subset_keeps_its_ids(self, source: Source, expected: torch.Tensor, tmp_path: Path) -> None:
        part = source.index.subset(np.arange(5, len(source.index), 7))
        rows = plan_of(part, part.ids)
        decoded = self.decode(replace(source, index=part), cut(rows, 4))
        assert torch.equal(torch.cat([pixels.images for pixels in decoded]), expected[torch.from_numpy(part.ids)])

    def test_two_backends_work_side_by_side(self, source: Source, expected: torch.Tensor) -> None:
        requests = cut(plan_of(source.index), 8)
        first, second = self.open(source), self.open(source, num_threads=1)
        for one, two in zip(first.stream(requests), second.stream(requests[::-1]), strict=True):
            assert one.images.shape == two.images.shape
        first.close()
        again = torch.cat([pixels.images for pixels in second.stream(requests)])
        second.close()
        assert torch.equal(again, expected)

    def test_requests_are_drawn_lazily(self, source: Source) -> None:
        drawn = []
        backend = self.open(source, prefetch=2)
        stream = backend.stream(recorded(cut(plan_of(source.index), 4), drawn))
        assert drawn == []
        for number, _ in enumerate(stream, start=1):
            assert len(drawn) <= number + 2 + 2
        backend.close()

    def test_an_error_of_the_requests_reaches_the_consumer(self, source: Source) -> None:
        backend = self.open(source)
        with pytest.raises(ZeroDivisionError):
            list(backend.stream(broken_after(cut(plan_of(source.index), 4), 5)))
        backend.close()

    def test_closing_early_ends_all_work(self, source: Source, expected: torch.Tensor) -> None:
        requests = cut(plan_of(source.index), 4)
        backend = self.open(source)
        for num_taken in (0, 1, 3):
            stream = backend.stream(requests)
            for _ in range(num_taken):
                next(stream)
            stream.close()
        assert torch.equal(next(backend.stream(requests)).images, expected[:4])
        backend.close()

    def test_no_thread_outlives_its_backend(self, source: Source) -> None:
        before, counts = threading.enumerate(), []
        for _ in range(4):
            backend = self.open(source)
            stream = backend.stream(cut(plan_of(source.index), 4))
            next(stream)
            stream.close()
            backend.close()
            backend.close()
            counts.append(num_native_threads())
        assert threading.enumerate() == before
        assert counts[1] == counts[-1], "native threads pile up"

    def test_the_pixel_recipe_is_json_and_names_the_backend(self, source: Source) -> None:
        backend = self.open(source)
        recipe = backend.pixel_recipe()
        backend.close()
        assert json.loads(json.dumps(recipe)) == recipe
        assert recipe["backend"] == self.backend

    def test_a_bad_image_stops_the_stream_in_its_turn(self, own_source: Source, kind: str) -> None:
        rows = plan_of(own_source.index)
        self.damage(own_source, 25, kind)
        backend = self.open(own_source)
        stream = backend.stream(cut(rows, 6))
        for part in cut(rows, 6)[: 25 // 6]:
            assert len(next(stream).images) == len(part)
        with pytest.raises(BadImageError, match=r"sample id 25\)") as caught:
            next(stream)
        backend.close()
        assert caught.value.sample_id == 25
        assert own_source.index.path_of(25) in str(caught.value)

    def test_a_bad_image_is_replaced_by_gray(self, own_source: Source, expected: torch.Tensor, kind: str) -> None:
        rows = plan_of(own_source.index)
        self.damage(own_source, 25, kind)
        for size in (1, 6, 72):
            decoded = self.decode(own_source, cut(rows, size), on_bad_image="gray")
            images = torch.cat([pixels.images for pixels in decoded])
            assert [pixels.replaced for pixels in decoded if pixels.replaced] == [(25,)]
            assert decoded[25 // size].replaced == (25,)
            assert torch.all(images[25] == GRAY)
            good = torch.arange(len(rows)) != 25
            assert torch.equal(images[good], expected[good])

    def test_many_bad_images_are_replaced_and_listed_in_order(self, own_source: Source, expected: torch.Tensor) -> None:
        if not self.damages:
            pytest.skip("nothing to damage")
        bad = [0, 8, 9, 10, 11, 30, 71]
        for number, sample_id in enumerate(bad):
            self.damage(own_source, sample_id, self.damages[number % len(self.damages)])
        decoded = self.decode(own_source, cut(plan_of(own_source.index), 4), on_bad_image="gray", prefetch=2)
        images = torch.cat([pixels.images for pixels in decoded])
        good = torch.ones(len(images), dtype=torch.bool)
        good[bad] = False
        assert [sample_id for pixels in decoded for sample_id in pixels.replaced] == bad
        assert torch.all(images[~good] == GRAY)
        assert torch.equal(images[good], expected[good])


def num_native_threads() -> int:
    """This process's threads; one that was joined may stay in the kernel's list for some milliseconds."""
    seen = []
    for _ in range(10):
        time.sleep(0.02)
        seen.append(len(os.listdir("/proc/self/task")))
    return min(seen)


def options_of(**changes: Any) -> BackendOptions:
    """Options of a small backend on the CPU, with some of them changed."""
    return replace(BackendOptions(resolution=RESOLUTION, num_threads=2, max_batch=72), **changes)


def plan_of(index: Index, ids: np.ndarray | None = None) -> PlanRows:
    """One training view of `ids`, or of the whole index."""
    ids = index.ids if ids is None else ids
    rows = index.rows_of(ids)
    plan = Plan(get_policy("imagenet_train"), plan_seed=7)
    return plan.rows(ids, np.full(len(ids), VIEW), index.widths[rows], index.heights[rows])


def views_of(index: Index, ids: np.ndarray, views: Iterable[int]) -> PlanRows:
    """Several views of some samples: all of the first one, then all of the second."""
    each = np.array(list(views))
    ids, views_B = np.repeat(ids, len(each)), np.tile(each, len(ids))
    rows = index.rows_of(ids)
    return Plan(get_policy("imagenet_train"), 0).rows(ids, views_B, index.widths[rows], index.heights[rows])


def take(rows: PlanRows, positions: np.ndarray) -> PlanRows:
    """Some rows of a plan."""
    return PlanRows(**{column.name: getattr(rows, column.name)[positions] for column in fields(rows)})


def cut(rows: PlanRows, size: int) -> list[PlanRows]:
    """A plan as requests of `size`, the last one shorter."""
    return [take(rows, np.arange(start, min(start + size, len(rows)))) for start in range(0, len(rows), size)]


def recorded(requests: list[PlanRows], drawn: list[int]) -> Iterator[PlanRows]:
    """The requests; `drawn` grows as they are taken."""
    for number, rows in enumerate(requests):
        drawn.append(number)
        yield rows


def broken_after(requests: list[PlanRows], count: int) -> Iterator[PlanRows]:
    """The first `count` requests, then an error."""
    yield from requests[:count]
    raise ZeroDivisionError


def damage_file(path: Path, kind: str) -> None:
    """Make an image file unreadable, or another image than the index knows."""
    content = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "exchanged":
        other = next(sibling for sibling in sorted(path.parent.iterdir()) if sibling.stat().st_size != len(content))
        path.write_bytes(other.read_bytes())
    elif kind == "bad_tables":  # as long as before, with a good header: only decoding it tells
        tables = content.index(b"\xff\xc4") + 5
        path.write_bytes(content[:tables] + b"\xff" * 16 + content[tables + 16 :])
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "text": b"no image", "empty": b""}[kind])
