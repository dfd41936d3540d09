"""Does `python -m benchmarks kernels` compare forms of one loss, and count all memory that a step asks for?"""

import pytest
import torch

from benchmarks._shared.clock import CPU
from benchmarks.kernels import Kernels
from benchmarks.kernels.measure import make_inputs, measure_kernels, seed_loop, step
from benchmarks.kernels.memory import peak_of
from pipeline.kernels import kl

SMALL = Kernels(batches=(6,), classes=(11,), rivals=("loop", "eager", "scalar"), repeats=1)


def test_every_loss_is_measured_against_its_rivals() -> None:
    figures = measure_kernels(SMALL)
    names = [pairs.name for pairs in figures.pairs]
    assert names[:3] == [f"kl B=6 C=11 / {rival}" for rival in ("loop", "eager", "scalar")]
    assert names[3:6] == [f"kl learned T B=6 C=11 / {rival}" for rival in ("loop", "eager", "scalar")]
    assert names[6:] == [f"{loss} B=6 C=11 / eager" for loss in ("dkd", "zscore_kl", "topk_kl")]
    assert all(min(pairs.a + pairs.b) > 0 for pairs in figures.pairs)
    assert all(peak.peak_bytes > 0 for peak in figures.memory)


def test_the_loop_is_the_loss_that_it_is_compared_with() -> None:
    inputs = make_inputs(6, 11, CPU, learned=True)
    fused = kl.kl(inputs.student, inputs.teacher, inputs.temperature, eps=kl.CTKD_EPS)
    torch.testing.assert_close(seed_loop(inputs), fused, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("learned", [False, True])
def test_a_fused_step_asks_for_two_buffers_at_most(learned: bool) -> None:
    """One is the gradient that it returns; blocks of rows share the other."""
    inputs = make_inputs(256, 1000, CPU, learned=learned)
    peak = peak_of("kl", lambda: step(lambda i: kl.kl(i.student, i.teacher, i.temperature), inputs), inputs.student)
    assert 1.0 < peak.buffers <= 2.0


def test_memory_is_counted_inside_operations_too() -> None:
    logits = torch.zeros(64, 100)
    peak = peak_of("two", lambda: (logits + 1).mul_(2).sub(3).sum().item(), logits)  # type: ignore[arg-type,return-value]
    assert peak.buffers == pytest.approx(2.0, abs=0.01)
