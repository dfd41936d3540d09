"""What a teacher costs: one epoch of the same student from labels, from stored rows, and with the teacher online."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks._shared.benchmark import Benchmark, Images
from benchmarks._shared.show import show_figures, show_pairs
from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0, Range


@dataclass(frozen=True)
class Epoch(Benchmark):
    """One epoch from labels, from stored outputs and with the teacher online; and how fast stored rows arrive."""

    data: Images
    teacher: Annotated[str, About("NAME@WEIGHTS, at the student's resolution.")] = "resnet18@random"
    student: Annotated[str, About("NAME.")] = "demo_student"
    resolution: Annotated[int, About("Side of the pixels.", ABOVE_0)] = 64
    batch: Annotated[int, About("Images of a step.", ABOVE_0)] = 32
    backend: Annotated[str, About("Of the pixels.")] = "torchvision"
    rounds: Annotated[int, About("Timed epochs of each of the three trainings.", ABOVE_0)] = 7
    rows: Annotated[
        int, About("Rows of the store from which rows alone are delivered.", Range(least=1000), free=True)
    ] = 262_144
    seconds: Annotated[float, About("Length of each such measurement.", ABOVE_0, free=True)] = 5.0

    def run(self) -> dict[str, Any]:
        """Pairs of trainings, and rows per second."""
        from benchmarks.epoch.delivery import measure_delivery
        from benchmarks.epoch.trainings import check_settings, measure_epochs

        check_settings(self)
        with tempfile.TemporaryDirectory() as temporary:
            results = measure_epochs(self, Path(temporary))
            delivery = measure_delivery(Path(temporary), num_rows=self.rows, seconds=self.seconds)
        pairs = show_pairs("seconds of an epoch against training from labels", ("distilled", "labels"), results)
        show_figures("stored rows to a step without a model, rows/s", delivery)
        settings = self.settings()
        return {"settings": {"train_dir": settings.pop("data"), **settings}, "pairs": pairs, "delivery": delivery}
