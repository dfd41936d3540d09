"""What several views from one decode are worth, and what precompute costs beside its loader."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from benchmarks._shared.benchmark import Benchmark, Images, Threads, check_names
from benchmarks._shared.show import show_pairs
from pipeline.core.fields import About
from pipeline.core.ranges import ABOVE_0

BACKENDS = ("ffcv-jpeg", "torchvision")  # which decode whole images


@dataclass(frozen=True)
class Precompute(Benchmark):
    """Views of an image from one decode, against as many passes; and filling a store against loading alone."""

    data: Images
    backends: Annotated[
        tuple[str, ...], About(f"Of {', '.join(BACKENDS)} (default: all that are installed).", free=True)
    ] = ()
    views: Annotated[int, About("Views from one decode.", ABOVE_0)] = 8
    resolution: Annotated[int, About("Output side in pixels.", ABOVE_0)] = 224
    batch: Annotated[int, About("Rows of a request.", ABOVE_0)] = 256
    threads: Threads = None
    images: Annotated[int, About("Images of each pair, each read once against once a view.", ABOVE_0)] = 256
    repeats: Annotated[int, About("Pairs.", ABOVE_0)] = 5
    work: Annotated[
        Path | None,
        About(
            "Folder that keeps FFCV's copy of the originals for the next time (default: a temporary one).",
            free=True,
        ),
    ] = None

    def run(self) -> dict[str, Any]:
        """Pairs of decodes, and pairs of fillings."""
        check_names("backend to measure", self.backends, BACKENDS)
        from benchmarks._shared.pixels import installed
        from benchmarks.precompute.decode import views_per_decode
        from benchmarks.precompute.fill import against_loader

        chosen = self.backends or installed(BACKENDS)
        with tempfile.TemporaryDirectory() as temporary:
            folder = self.work or Path(temporary)
            results = views_per_decode(self, chosen, folder)
            filled = against_loader(self, chosen, folder)
        title = f"{self.views} views from one decode against {self.views} passes, views/s, medians"
        pairs = show_pairs(title, ("one decode", "passes"), results)
        title = "precompute with a teacher that costs nothing against its loader alone, images/s, medians"
        against = show_pairs(title, ("precompute", "loader"), filled)
        return {"settings": self.settings(), "pairs": pairs, "against_loader": against}
