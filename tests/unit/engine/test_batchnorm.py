"""Running statistics over micro-batches and ranks, against a computation in float64."""

import pytest
import torch
from torch import nn

from pipeline.core.errors import ConfigError
from pipeline.devices.world import World
from pipeline.engine.batchnorm import RunningStatistics, mean_over_ranks

MOMENTUM, M, STEPS, CHANNELS = 0.1, 6, 5, 4


def world_of(rank: int, size: int) -> World:
    return World(rank, size, torch.device("cpu"), 1)


def data() -> torch.Tensor:
    """(steps, micro-batches, samples, channels)."""
    return torch.randn(STEPS, M, 8, CHANNELS, generator=torch.Generator().manual_seed(3)) * 2 + 1


def run_rank(batches: torch.Tensor, rank: int, size: int, num_all: int) -> nn.BatchNorm1d:
    """One rank's layer after all steps on its share."""
    layer = nn.BatchNorm1d(CHANNELS, momentum=MOMENTUM)
    deal = range(rank, num_all, size)
    statistics = RunningStatistics(layer, num_own=len(deal), num_all=num_all, world=world_of(rank, size))
    for step in batches:
        statistics.begin_step()
        for index in deal:
            layer(step[index])
            statistics.after_micro_batch()
        statistics.end_step()
    with statistics.averaged(gathered=torch.zeros(1, 2 * CHANNELS)):
        return layer  # training's own statistics come back; the counts have been written


def count_of(layer: nn.Module) -> int:
    return int(layer.state_dict()["num_batches_tracked"])


def expected(batches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean, var = torch.zeros(CHANNELS, dtype=torch.float64), torch.ones(CHANNELS, dtype=torch.float64)
    for step in batches.double():
        mean = (1 - MOMENTUM) * mean + MOMENTUM * step.mean(dim=1).mean(dim=0)
        var = (1 - MOMENTUM) * var + MOMENTUM * step.var(dim=1, unbiased=True).mean(dim=0)
    return mean, var


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_the_mean_over_ranks_does_not_depend_on_their_number(size: int) -> None:
    """Also for unequal deals: four ranks run 2, 2, 1, 1."""
    batches = data()
    layers = [run_rank(batches, rank, size, M) for rank in range(size)]
    mean, var = expected(batches)
    means = mean_over_ranks(torch.stack([layer.running_mean for layer in layers]))
    torch.testing.assert_close(means.double(), mean, rtol=1e-6, atol=1e-6)
    variances = mean_over_ranks(torch.stack([layer.running_var for layer in layers]))
    torch.testing.assert_close(variances.double(), var, rtol=1e-6, atol=1e-6)
    assert {count_of(layer) for layer in layers} == {STEPS}


def test_one_micro_batch_is_pytorchs_own_update() -> None:
    batches = data()[:, :1]
    ours, plain = run_rank(batches, 0, 1, 1), nn.BatchNorm1d(CHANNELS, momentum=MOMENTUM)
    for step in batches:
        plain(step[0])
    assert torch.equal(ours.running_mean, plain.running_mean)
    assert torch.equal(ours.running_var, plain.running_var)


def test_training_still_uses_each_micro_batchs_own_statistics() -> None:
    layer = nn.BatchNorm1d(CHANNELS)
    RunningStatistics(layer, num_own=2, num_all=2, world=world_of(0, 1))
    batch = data()[0, 0]
    torch.testing.assert_close(layer(batch), nn.BatchNorm1d(CHANNELS)(batch))


def test_saved_statistics_come_back_or_are_averaged() -> None:
    gathered = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    for rank, size, mean in ((1, 2, 3.0), (0, 1, 2.0)):
        layer = nn.BatchNorm1d(1)
        statistics = RunningStatistics(layer, num_own=1, num_all=size, world=world_of(rank, size))
        statistics.load(gathered)
        assert layer.running_mean.item() == mean


def test_a_cumulative_average_is_refused_where_it_would_depend_on_the_deal() -> None:
    with pytest.raises(ConfigError, match="momentum None"):
        RunningStatistics(nn.BatchNorm1d(2, momentum=None), num_own=2, num_all=2, world=world_of(0, 1))


@pytest.mark.parametrize("num_all", [1, 3])
def test_batches_are_counted_on_the_host_and_written_when_they_are_read(num_all: int) -> None:
    trained, frozen = nn.BatchNorm1d(CHANNELS), nn.BatchNorm1d(CHANNELS).eval()
    statistics = RunningStatistics(
        nn.Sequential(trained, frozen), num_own=num_all, num_all=num_all, world=world_of(0, 1)
    )
    for steps in (2, 5, 5):  # nothing happens between the last two
        for _ in range(steps - count_of(trained)):
            statistics.begin_step()
            for batch in data()[0, :num_all]:
                trained(batch)
                statistics.after_micro_batch()
            statistics.end_step()
        with statistics.averaged():
            assert (count_of(trained), count_of(frozen)) == (steps, 0)


def test_loading_forgets_steps_that_were_not_counted() -> None:
    layer = nn.BatchNorm1d(CHANNELS)
    statistics = RunningStatistics(layer, num_own=1, num_all=1, world=world_of(0, 1))
    layer(data()[0, 0])
    statistics.end_step()
    layer.load_state_dict({**layer.state_dict(), "num_batches_tracked": torch.tensor(40)})
    statistics.load(torch.ones(1, 2 * CHANNELS))
    with statistics.averaged():
        assert count_of(layer) == 40


def test_a_cumulative_average_counts_for_itself() -> None:
    ours, plain = nn.BatchNorm1d(CHANNELS, momentum=None), nn.BatchNorm1d(CHANNELS, momentum=None)
    RunningStatistics(ours, num_own=1, num_all=1, world=world_of(0, 1))
    for batch in data()[:, 0]:
        ours(batch)
        plain(batch)
    assert torch.equal(ours.running_mean, plain.running_mean)
    assert count_of(ours) == count_of(plain) == STEPS
