"""Orders of any size, batch and world size."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.order import Order, permutation

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def orders(draw: st.DrawFn) -> Order:
    micro_batch, num_micro_batches = draw(st.integers(1, 9)), draw(st.integers(1, 8))
    num = draw(st.integers(micro_batch * num_micro_batches, 400))
    ids = np.sort(np.random.default_rng(num).choice(10**12, num, replace=False))
    return Order(ids, draw(SEEDS), micro_batch, num_micro_batches)


@given(num=st.integers(1, 3000), seed=SEEDS, epoch=st.integers(0, 10_000))
def test_every_id_comes_once(num: int, seed: int, epoch: int) -> None:
    assert np.array_equal(np.sort(permutation(num, seed, epoch)), np.arange(num))


@given(order=orders(), step=st.integers(0, 500), data=st.data())
def test_ranks_share_the_micro_batches_of_a_step(order: Order, step: int, data: st.DataObject) -> None:
    world_size = data.draw(st.integers(1, order.num_micro_batches))
    permuted = order.permutation(order.epoch_of(step))
    alone = order.micro_batches(permuted, step, range(order.num_micro_batches))
    shared = [
        batch
        for rank in range(world_size)
        for batch in order.micro_batches(permuted, step, order.deal(rank, world_size))
    ]
    shared.sort(key=lambda batch: batch.index)
    assert [batch.index for batch in shared] == list(range(order.num_micro_batches))
    assert all(np.array_equal(mine.ids, whole.ids) for mine, whole in zip(shared, alone, strict=True))
    assert all(len(batch.ids) == order.micro_batch for batch in shared)


@settings(max_examples=50)
@given(order=orders(), epoch=st.integers(0, 100))
def test_an_epoch_uses_each_sample_at_most_once(order: Order, epoch: int) -> None:
    permuted, first = order.permutation(epoch), epoch * order.steps_per_epoch
    seen = [
        batch.ids
        for step in range(first, first + order.steps_per_epoch)
        for batch in order.micro_batches(permuted, step, range(order.num_micro_batches))
    ]
    ids = np.concatenate(seen)
    assert len(np.unique(ids)) == len(ids) == order.steps_per_epoch * order.batch
    assert len(order.ids) - len(ids) < order.batch
    assert np.isin(ids, order.ids).all()
