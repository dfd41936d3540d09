"""What ranks agree on, and an evaluation shared among them."""

import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import h5py
import pytest
import torch
from jobs import flip_byte, run_on_ranks
from torch import nn

from pipeline.config import Files, Running
from pipeline.core.errors import ConfigError, RefluxError
from pipeline.data import datasets
from pipeline.data.backend import BackendOptions, Source, open_backend
from pipeline.data.backends.synthetic import synthetic_index
from pipeline.data.index import Index
from pipeline.data.loader import Batch, Loader
from pipeline.data.plan import Plan
from pipeline.data.policy import get_policy
from pipeline.devices.world import AgreedFlag, World
from pipeline.engine.evaluate import evaluate
from pipeline.models.network import Network

SAMPLES, BATCH, CLASSES = 47, 5, 7


def raise_on_rank_1(world: World) -> list[bool]:
    flag = AgreedFlag(world)
    seen = [flag.update(world.rank == 1 and step >= 3) for step in range(6)]
    return [*seen, flag.drain()]


def test_a_flag_is_seen_by_all_at_one_step(tmp_path: Path) -> None:
    expected = [False, False, False, False, True, True, True]
    assert run_on_ranks(raise_on_rank_1, size=3, folder=tmp_path) == [expected] * 3


def exchange(world: World) -> list[Any]:
    values = world.gather({"rank": world.rank, "text": "é" * 10**world.rank})
    rows = world.gather_rows(torch.arange(3.0) + world.rank)
    total = world.sum_(torch.tensor([1.0 + world.rank]))
    try:
        world.main_first(lambda: _fail())
    except ConfigError as error:
        return [[len(value["text"]) for value in values], rows.tolist(), total.item(), str(error)]
    return []


def _fail() -> None:
    raise ConfigError("only the main rank looked")


def test_values_rows_sums_and_errors_reach_every_rank(tmp_path: Path) -> None:
    expected = [[1, 10, 100], [[0, 1, 2], [1, 2, 3], [2, 3, 4]], 6.0, "only the main rank looked"]
    assert run_on_ranks(exchange, size=3, folder=tmp_path) == [expected] * 3


def take_back_at_once(files: Files, backend: Literal["torchvision", "ffcv"], world: World) -> int:
    if not world.is_main:
        _slow_down("load_index")
        _slow_down("read_beton_index")
    source, _ = datasets.open_train(files, Running(backend=backend), world)
    if world.is_main:
        shutil.rmtree(files.out)
    return len(source.index)


def meet_a_damaged_index(files: Files, world: World) -> str:
    if not world.is_main:
        _slow_down("load_index")
    try:
        datasets.open_train(files, Running(backend="torchvision"), world)
    except RefluxError as error:
        if world.is_main:
            shutil.rmtree(files.out)
        return str(error)
    return "opened"


def _slow_down(name: str) -> None:
    read = getattr(datasets, name)

    def read_late(*arguments: Any, **named: Any) -> Any:
        time.sleep(0.5)
        return read(*arguments, **named)

    setattr(datasets, name, read_late)  # of a forked rank


@pytest.mark.parametrize("backend", ["torchvision", "ffcv"])
def test_data_are_open_on_every_rank_before_one_goes_on(backend: str, photo_folder: Path, tmp_path: Path) -> None:
    """Rank 0 may be refused next, and take back the folder with the index that rank 1 is slow to read."""
    files = Files(out=tmp_path / "run", train_dir=photo_folder)
    assert run_on_ranks(partial(take_back_at_once, files, backend), size=2, folder=tmp_path) == [72, 72]


def test_a_damaged_index_is_the_same_error_on_every_rank(photo_index: Index, tmp_path: Path) -> None:
    files = Files(out=tmp_path / "run", train_dir=photo_index.root)
    own = files.out / "index" / "train.index.h5"
    photo_index.save(own)
    with h5py.File(own) as file:
        offset = file["labels"].id.get_offset()
    flip_byte(own, offset)
    first, second = run_on_ranks(partial(meet_a_damaged_index, files), size=2, folder=tmp_path)
    assert first == second
    assert f"{own} is damaged" in first


def evaluated(world: World) -> list[Any]:
    """The accuracy, the ids that this rank saw, and a broken-off evaluation."""
    index = synthetic_index(SAMPLES, CLASSES)
    options = BackendOptions(
        resolution=16, num_threads=1, max_batch=BATCH, device="cpu", on_bad_image="stop", prefetch=2
    )
    backend = open_backend("synthetic", Source(index), options)
    loader = Loader(index, Plan(get_policy("imagenet_eval"), 0), backend, world.device, 1)
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Flatten(), nn.Linear(16 * 16 * 3, CLASSES))).eval()
    seen: list[int] = []

    def prepare(images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 3, 1, 2).float() / 255

    def noted(batch: Batch) -> Batch:
        seen.extend(batch.ids.tolist())
        return batch

    rounds = -(-SAMPLES // (BATCH * world.size))
    batches = (noted(batch) for batch in loader.evaluation(BATCH, rank=world.rank, world_size=world.size))
    found = evaluate(network, batches, prepare=prepare, world=world, num_rounds=rounds)
    again = loader.evaluation(BATCH, rank=world.rank, world_size=world.size)
    broken = evaluate(network, again, prepare=prepare, world=world, num_rounds=rounds, on_batch=lambda done: done == 2)
    assert found is not None
    return [found.top1, found.top5, found.ce, found.num_samples, seen, broken is None]


@pytest.fixture(scope="module")
def of_one_rank(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return run_on_ranks(evaluated, size=1, folder=tmp_path_factory.mktemp("one"))[0]


@pytest.mark.parametrize("size", [2, 3])
def test_every_sample_is_evaluated_once(size: int, of_one_rank: list[Any], tmp_path: Path) -> None:
    """47 samples in batches of 5: neither divides by 2 or 3."""
    results = run_on_ranks(evaluated, size=size, folder=tmp_path)
    ids = [sample_id for result in results for sample_id in result[4]]
    assert sorted(ids) == sorted(of_one_rank[4]) == list(range(SAMPLES))
    for top1, top5, ce, num_samples, _, broken in results:
        assert (top1, top5, num_samples, broken) == (of_one_rank[0], of_one_rank[1], SAMPLES, True)
        assert ce == pytest.approx(of_one_rank[2], rel=1e-12)
