"""Does the loader join ids, plan rows, pixels and labels of the same samples, and count each validation sample once?"""

from contextlib import closing

import numpy as np
import pytest
import torch

from pipeline.core.errors import ConfigError
from pipeline.data.backend import BackendOptions, Source, choose_backend, open_backend
from pipeline.data.backends.synthetic import synthetic_index
from pipeline.data.index import Index
from pipeline.data.loader import Loader
from pipeline.data.order import Order
from pipeline.data.plan import Plan
from pipeline.data.policy import get_policy
from pipeline.teachers.preparation import preparation

CPU = torch.device("cpu")


def make_loader(index: Index, num_views: int | None = None) -> Loader:
    options = BackendOptions(resolution=32, num_threads=1, max_batch=64)
    backend = open_backend("synthetic", Source(index), options)
    return Loader(index, Plan(get_policy("imagenet_train"), plan_seed=5), backend, CPU, num_views)


@pytest.fixture
def index() -> Index:
    return synthetic_index(101, 7)


def test_a_batch_belongs_together(index: Index) -> None:
    order = Order(index.ids, run_seed=1, micro_batch=8, num_micro_batches=3)
    loader = make_loader(index)
    with closing(loader.training(order, rank=1, world_size=2, start_step=2, stop_step=6)) as batches:
        seen = list(batches)
    assert [(batch.step, batch.index) for batch in seen] == [(step, 1) for step in range(2, 6)]
    for batch in seen:
        permuted = order.permutation(order.epoch_of(batch.step))
        (expected,) = order.micro_batches(permuted, batch.step, range(1, 2))
        np.testing.assert_array_equal(batch.ids.numpy(), expected.ids)
        np.testing.assert_array_equal(batch.labels.numpy(), index.labels[expected.ids])
        np.testing.assert_array_equal(batch.rows.views, batch.epoch)
        alone = next(loader.backend.stream([batch.rows]))
        assert torch.equal(batch.images, alone.images)


def test_views_rotate(index: Index) -> None:
    order = Order(index.ids, run_seed=1, micro_batch=50, num_micro_batches=2)
    loader = make_loader(index, num_views=2)
    with closing(loader.training(order, rank=0, world_size=1, start_step=0, stop_step=5)) as batches:
        views = [int(batch.rows.views[0]) for batch in batches if batch.index == 0]
    assert views == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_evaluation_counts_every_sample_once_in_the_same_batches(index: Index, world_size: int) -> None:
    loader = make_loader(index, num_views=1)
    batches = [
        (batch.step, batch.ids.tolist())
        for rank in range(world_size)
        for batch in loader.evaluation(16, rank=rank, world_size=world_size)
    ]
    in_order = [ids for _, ids in sorted(batches)]
    assert in_order == [list(range(first, min(first + 16, 101))) for first in range(0, 101, 16)]


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_normalise_is_mean_and_deviation_of_shares(memory_format: torch.memory_format) -> None:
    images = torch.randint(0, 256, (2, 5, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    shares = images.double().permute(0, 3, 1, 2) / 255
    expected = (shares - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    found = preparation(mean, std, torch.device("cpu"), memory_format)(images)
    assert found.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)


def test_auto_takes_ffcv_for_a_beton_and_never_anything_else_for_it() -> None:
    assert choose_backend("auto", has_beton=True) == "ffcv"
    assert choose_backend("auto", has_beton=False) in ("dali", "torchvision")
    with pytest.raises(ConfigError, match="--beton is read by the ffcv backend, not by 'dali'"):
        choose_backend("dali", has_beton=True)
