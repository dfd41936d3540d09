"""The order of samples: permutations, micro-batches, their deal to ranks."""

import time
from statistics import median

import numpy as np
import pytest

from pipeline.core.errors import ConfigError
from pipeline.data.order import Order, permutation

IMAGENET = 1_281_167


def make_order(num: int = 103, seed: int = 3, micro_batch: int = 4, num_micro_batches: int = 6) -> Order:
    return Order(np.arange(num, dtype=np.int64), seed, micro_batch, num_micro_batches)


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5, 1000, 1001, 65_537])
def test_permutation_holds_every_id_once(num: int) -> None:
    assert np.array_equal(np.sort(permutation(num, 0, 0)), np.arange(num))


def test_epochs_and_seeds_have_unrelated_permutations() -> None:
    orders = [permutation(20_000, seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    for i, first in enumerate(orders):
        for second in orders[i + 1 :]:
            assert abs(np.corrcoef(first, second)[0, 1]) < 0.04
            assert np.sum(first == second) < 12  # one is expected


def test_seed_and_epoch_are_not_added() -> None:
    assert not np.array_equal(permutation(500, 1, 2), permutation(500, 2, 1))
    assert not np.array_equal(permutation(500, 0, 3), permutation(500, 3, 0))


def test_positions_are_uniform() -> None:
    """Over many epochs each id is as often in the first half as in the second."""
    early = np.zeros(64)
    for epoch in range(2000):
        early[permutation(64, 9, epoch)[:32]] += 1
    assert np.abs(early - 1000).max() < 5 * np.sqrt(500)


def test_steps_use_each_sample_at_most_once_an_epoch_and_drop_the_incomplete_step() -> None:
    order = make_order()
    assert order.batch == 24
    assert order.steps_per_epoch == 4
    permuted = order.permutation(0)
    seen = np.concatenate([batch.ids for step in range(4) for batch in order.micro_batches(permuted, step, range(6))])
    assert len(np.unique(seen)) == len(seen) == 96


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5, 6])
def test_every_micro_batch_is_dealt_once(world_size: int) -> None:
    dealt = [index for rank in range(world_size) for index in make_order().deal(rank, world_size)]
    assert sorted(dealt) == list(range(6))


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_a_micro_batch_is_the_same_whoever_runs_it(world_size: int) -> None:
    order = make_order()
    for step in (0, 3, 4, 9):
        permuted = order.permutation(order.epoch_of(step))
        alone = order.micro_batches(permuted, step, range(6))
        for rank in range(world_size):
            for batch in order.micro_batches(permuted, step, order.deal(rank, world_size)):
                assert np.array_equal(batch.ids, alone[batch.index].ids)
                assert (batch.step, batch.epoch) == (step, step // 4)


def test_more_ranks_than_micro_batches_are_refused() -> None:
    with pytest.raises(ConfigError, match="6 micro-batches, 7 ranks"):
        make_order().deal(0, 7)


def test_a_batch_beyond_the_data_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="--batch 24, 23 samples"):
        make_order(num=23)


def test_a_seed_beyond_32_bits_is_refused() -> None:
    with pytest.raises(ConfigError, match="run_seed"):
        make_order(seed=2**32)


def test_a_subset_keeps_its_ids() -> None:
    ids = np.array([5, 900_000_000_000, 7, 11], np.int64)
    order = Order(ids, 0, 2, 2)
    assert sorted(order.permutation(4).tolist()) == sorted(ids.tolist())


def test_resuming_in_the_middle_gives_the_tail() -> None:
    order = make_order()

    def steps(first: int) -> list[list[int]]:
        return [
            batch.ids.tolist()
            for step in range(first, 12)
            for batch in order.micro_batches(order.permutation(order.epoch_of(step)), step, range(6))
        ]

    assert steps(7) == steps(0)[7 * 6 :]


def test_an_imagenet_epoch_is_ordered_in_time() -> None:
    def seconds(epoch: int) -> float:
        started = time.process_time()  # not the wall clock: other programs run here too
        permutation(IMAGENET, 0, epoch)
        return time.process_time() - started

    assert median(seconds(epoch) for epoch in range(3)) <= 0.3
