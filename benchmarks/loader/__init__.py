"""Is replay free? Each backend on a given plan, against its library's own random pipeline on the same files."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks._shared.benchmark import Benchmark, Images, check_names
from benchmarks._shared.imagenet import SAMPLES
from benchmarks._shared.show import show_figures, show_pairs
from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0

BACKENDS = ("dali", "ffcv-raw", "ffcv-jpeg", "torchvision")


@dataclass(frozen=True)
class Loader(Benchmark):
    """Each backend on replayed views against its library's own random pipeline; and what ImageNet's metadata cost."""

    data: Images
    backends: Annotated[
        tuple[str, ...], About(f"Of {', '.join(BACKENDS)} (default: all that are installed).", free=True)
    ] = ()
    resolution: Annotated[int, About("Output side in pixels.", ABOVE_0)] = 224
    batch: Annotated[int, About("Images per batch.", ABOVE_0)] = 64
    threads: Annotated[
        int | None, About("Decoder threads, or worker processes of the DataLoader (default: all cores).", ABOVE_0)
    ] = None
    batches: Annotated[int, About("Batches in a timed window.", ABOVE_0)] = 30
    repeats: Annotated[int, About("Pairs of windows.", ABOVE_0)] = 5
    max_side: Annotated[int, About("Longer side of the images in FFCV's copies.", ABOVE_0)] = 500
    work: Annotated[
        Path | None,
        About("Folder that keeps FFCV's copies for the next time (default: a temporary one).", free=True),
    ] = None

    def run(self) -> dict[str, Any]:
        """Pairs of backends, and figures of metadata."""
        check_names("backend to measure", self.backends, BACKENDS)
        from benchmarks.loader.measure import measure_loaders
        from benchmarks.loader.metadata import measure_metadata

        with tempfile.TemporaryDirectory() as temporary:
            results = measure_loaders(self, self.work or Path(temporary))
        metadata = measure_metadata()
        pairs = show_pairs("replayed against native, images/s, medians", ("replayed", "native"), results)
        show_figures(f"metadata of {SAMPLES:,} samples", metadata)
        return {"settings": self.settings(), "pairs": pairs, "metadata": metadata}
