"""Pooling that is PyTorch's in value and gradient, and deterministic on every device."""

import itertools

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from pipeline.methods._shared.pooling import pool_larger, pool_to

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def gradient_of(pooled: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    (gradient,) = torch.autograd.grad((pooled * torch.arange(pooled.numel()).view_as(pooled).to(pooled)).sum(), maps)
    return gradient


@pytest.mark.parametrize("size", range(1, 15))
def test_values_and_gradients_are_those_of_adaptive_pooling(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    for height, width in itertools.product(range(1, 8), repeat=2):
        maps = torch.randn(2, 3, size, 15 - size, dtype=torch.float64, generator=generator).requires_grad_()
        found, expected = pool_to(maps, height, width), adaptive_avg_pool2d(maps, (height, width))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient_of(found, maps), gradient_of(expected, maps), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("side", [4, 2, 1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32_and_keeps_its_dtype(side: int, dtype: torch.dtype) -> None:
    maps = torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pool_to(maps, side, side)
    assert found.dtype == dtype
    assert torch.equal(found, adaptive_avg_pool2d(maps.float(), side).to(dtype))


def test_float32_stays_exact_under_autocast() -> None:
    maps = torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pool_to(maps, 4, 4)
    torch.testing.assert_close(found, adaptive_avg_pool2d(maps, 4), rtol=1e-6, atol=1e-6)


def test_what_an_evaluation_made_serves_training() -> None:
    with torch.inference_mode():
        pool_to(torch.ones(1, 1, 13, 11), 5, 3)
    maps = torch.ones(1, 1, 13, 11, requires_grad=True)
    pool_to(maps, 5, 3).sum().backward()
    assert maps.grad is not None


def test_the_larger_map_is_pooled() -> None:
    small, large = torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 7, 7)
    assert [side.shape[2] for side in pool_larger(small, large)] == [4, 4]
    assert [side.shape[2] for side in pool_larger(large, small)] == [4, 4]
    assert pool_larger(small, small)[0] is small


@pytest.mark.parametrize("device", DEVICES)
def test_the_backward_pass_is_allowed_among_deterministic_kernels(device: str) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        for height, width in ((4, 4), (7, 2), (2, 2), (1, 1)):
            maps = torch.randn(2, 3, 14, 7, device=device, requires_grad=True)
            pool_to(maps, height, width).square().sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
