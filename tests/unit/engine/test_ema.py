"""The moving average against a computation in float64."""

import torch
from torch import nn

from pipeline.engine.ema import ModuleAverage
from pipeline.models.network import Network


def test_it_is_the_recursion_in_float64() -> None:
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 3)))
    average, decay = ModuleAverage(network, 0.97), 0.97
    expected = {name: value.detach().double() for name, value in network.named_parameters()}
    for _ in range(40):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update()
        for name, value in network.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * value.detach().double()
    for name, value in average.module.named_parameters():
        torch.testing.assert_close(value.double(), expected[name], rtol=0, atol=2e-6)
        assert not value.requires_grad


def test_it_predicts_by_itself() -> None:
    """Its copy of the network records its own features, and takes the trained one's statistics when asked."""
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 3)))
    average = ModuleAverage(network, 0.5)
    network(torch.randn(8, 3, 2, 2) + 5)
    assert not torch.equal(average.module.model[1].running_mean, network.model[1].running_mean)
    average.copy_buffers()
    assert torch.equal(average.module.model[1].running_mean, network.model[1].running_mean)
    outputs = average.module.eval()(torch.randn(4, 3, 2, 2))
    assert outputs.logits.shape == (4, 3)
