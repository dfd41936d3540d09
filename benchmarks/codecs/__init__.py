"""What a codec costs and what it keeps: bytes a row against what a loss makes of the decoded logits."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from benchmarks._shared.benchmark import Benchmark, Images, Threads, check_new_file
from benchmarks._shared.imagenet import POLICY
from pipeline.config import Views
from pipeline.core.command import progress
from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0


@dataclass(frozen=True)
class Codecs(Benchmark):
    """Rate and distortion of every codec on what a teacher gives for real views."""

    data: Images
    teacher: Annotated[str, About("NAME@WEIGHTS.")]
    png: Annotated[Path | None, About("File for a picture of the table.", free=True)] = None
    rows: Annotated[int, About("Views that the teacher looks at.", ABOVE_0)] = 2000
    resolution: Annotated[int, About("Side of the teacher's pixels.", ABOVE_0)] = 224
    policy: Annotated[str, About("Augmentation of the views.")] = POLICY
    threads: Threads = None
    mean: tuple[float, float, float] = field(init=False, default=Views.mean)
    std: tuple[float, float, float] = field(init=False, default=Views.std)

    def run(self) -> dict[str, Any]:
        """A line for each codec."""
        check_new_file("--png", self.png)
        from benchmarks.codecs.measure import check_teacher, measure_codecs, teacher_rows, to_json
        from benchmarks.codecs.report import codecs_table, draw_codecs, title_of

        check_teacher(self)
        with progress("teacher", "rows") as on_progress:
            outputs = teacher_rows(self, on_progress)
        lines = measure_codecs(outputs)
        report = to_json(self, outputs, lines)
        title = title_of(report["settings"], outputs)
        Console().print(codecs_table(title, lines))
        if self.png is not None:
            draw_codecs(self.png, title, lines)
            Console().print(f"picture: {self.png}")
        return report
