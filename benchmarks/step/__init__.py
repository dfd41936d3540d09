"""What a method adds to a training step: the same student, optimiser and batch, with the teacher's outputs given."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from benchmarks._shared.benchmark import Benchmark
from benchmarks._shared.show import show_figures, show_pairs
from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0

FROM_LOGITS = ("kd", "dkd", "ctkd", "ctkd_instance", "dist", "nkd", "lskd")  # what stored logits serve


@dataclass(frozen=True)
class Step(Benchmark):
    """One training step of each method, with the teacher's outputs given, against the step of supervised training."""

    methods: Annotated[
        tuple[str, ...],
        About("Names of methods, ctkd_instance among them (default: those that stored logits serve)."),
    ] = ()
    student: Annotated[str, About("NAME.")] = "resnet18"
    teacher: Annotated[str, About("NAME; its weights are random, its outputs are made before.")] = "resnet34"
    resolution: Annotated[int, About("Side of the images.", ABOVE_0)] = 224
    batch: Annotated[int, About("Images of a step.", ABOVE_0)] = 64
    amp: Annotated[Literal["off", "bf16", "fp16"], About("Precision of the student's body.")] = "off"
    steps: Annotated[int, About("Steps of a timed window.", ABOVE_0)] = 1
    repeats: Annotated[int, About("Pairs of windows.", ABOVE_0)] = 3

    def run(self) -> dict[str, Any]:
        """Pairs of steps, and the loss alone as a share of a step."""
        from benchmarks.step.measure import check_settings, measure_steps

        settings = replace(self, methods=self.methods or FROM_LOGITS)
        check_settings(settings)
        figures = measure_steps(settings)
        title = "steps/s with the method and with labels alone"
        rows = show_pairs(title, ("method", "labels"), [one.pairs for one in figures])
        shares = {one.pairs.name: 100 * one.share for one in figures}
        show_figures("the loss and its gradient, per cent of the step", shares)
        both = zip(rows, figures, strict=True)
        methods = [{**row, "loss_ms": one.loss_ms, "share": one.share} for row, one in both]
        return {"settings": settings.settings(), "methods": methods}
