"""Fused losses against what one would write otherwise: speed, peak memory, share of bandwidth."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from benchmarks._shared.benchmark import Benchmark, check_names
from benchmarks._shared.show import show_figures, show_pairs
from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0, Range

LOSSES = ("kl", "dkd", "zscore_kl", "topk_kl")
RIVALS = ("loop", "eager", "compiled", "liger", "scalar")


@dataclass(frozen=True)
class Kernels(Benchmark):
    """Fused losses against the per-sample loop, batched autograd, torch.compile and Liger-Kernel; time and memory."""

    batches: Annotated[tuple[int, ...], About("Values of B.", ABOVE_0)] = (64, 256, 1024)
    classes: Annotated[tuple[int, ...], About("Values of C.", Range(least=2))] = (100, 1000, 21841)
    losses: Annotated[tuple[str, ...], About("Of kl (a temperature for each sample), dkd, zscore_kl, topk_kl.")] = (
        LOSSES
    )
    rivals: Annotated[
        tuple[str, ...],
        About("Of loop (the seed's), eager, compiled, liger, scalar (the fused form with one temperature)."),
    ] = RIVALS
    repeats: Annotated[int, About("Pairs of windows.", ABOVE_0)] = 5
    window_s: float = field(init=False, default=0.05)
    device: Annotated[Literal["cpu", "cuda"], About("cpu or cuda.")] = "cpu"
    half: Annotated[bool, About("bfloat16 logits in the place of float32.")] = False

    def run(self) -> dict[str, Any]:
        """Speeds in pairs, peaks of memory, and on CUDA launches and share of a copy's bandwidth."""
        check_names("loss to measure", self.losses, LOSSES)
        check_names("rival to measure", self.rivals, RIVALS)
        from benchmarks.kernels.measure import check_device, measure_kernels

        check_device(self.device)
        figures = measure_kernels(self)
        pairs = show_pairs("forward and backward, steps/s, medians", ("fused", "rival"), figures.pairs)
        peaks = {peak.name: peak.buffers for peak in figures.memory}
        show_figures("peak memory of a step, in float32 buffers of B x C", peaks)
        for name, found in figures.cuda.items():
            show_figures(name, found)
        memory = [asdict(peak) for peak in figures.memory]
        return {"settings": self.settings(), "pairs": pairs, "memory": memory, "cuda": figures.cuda}
