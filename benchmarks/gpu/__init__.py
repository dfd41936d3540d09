"""What only a GPU can settle: checks first, times beside them, one file a section, each in a process of its own.

The sections are found in `sections/`. No file of it needs tyro or an installation.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks._shared.benchmark import Benchmark, check_names
from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0


@dataclass(frozen=True)
class Gpu(Benchmark):
    """What only a GPU can settle: kernels, hand-overs, waits, restarts and precisions as checks, times beside them.

    Each section runs in a process of its own: one that fails or dies is reported, and the others go on. Ends with 1
    where a check has failed; what could not be run here says why, and is no failure.
    """

    quick: Annotated[bool, About("Each section in its smallest sensible form, some two minutes.")] = False
    data: Annotated[
        Path | None,
        About("Folder with a folder of images per class, or with train/ and val/ (default: generated images)."),
    ] = None
    sections: Annotated[tuple[str, ...], About("Names of sections (default: all).")] = ()
    minutes: Annotated[
        float, About("After which no part begins any more; the sections' shares of it are for 8.", ABOVE_0)
    ] = 8.0
    work: Annotated[
        Path | None,
        About("Folder in which a temporary one is made for images, a store and small runs (default: the system's)."),
    ] = None

    def run(self) -> dict[str, Any]:
        """Every section's outcomes by part."""
        from benchmarks.gpu.findings import Setting
        from benchmarks.gpu.sections import SECTIONS
        from benchmarks.gpu.suite import check_device, measure_gpu

        check_names("section", self.sections, SECTIONS)
        check_device()
        chosen = [SECTIONS[name] for name in SECTIONS if not self.sections or name in self.sections]
        data = None if self.data is None else self.data.absolute()
        with tempfile.TemporaryDirectory(dir=self.work) as temporary:
            setting = Setting("cuda:0", Path(temporary).absolute(), data, "quick" if self.quick else "full")
            return measure_gpu(setting, chosen, self.minutes)
