"""One JSON line per rank and step: which samples, which views, which pixels. For bug reports and equality tests."""

import zlib
from pathlib import Path

from pipeline.data.loader import Batch
from pipeline.jobs.journal import LineWriter, drop_lines_from


class Trace:
    """Writes DIR/rank-00000.jsonl; lines of steps that will run again are removed first.

    A line is {"epoch", "step", "view", "micro_batches", "ids", "plan_crc", "image_crc"}; the last three have one entry
    per sample. It copies pixels to the host: a traced run is slower.
    """

    def __init__(self, folder: Path, *, rank: int, start_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"rank-{rank:05d}.jsonl"
        drop_lines_from(path, start_step)
        self._lines = LineWriter(path)

    def write(self, batches: list[Batch]) -> None:
        """Record what this rank uses in one step."""
        views = sorted({int(view) for batch in batches for view in batch.rows.views})
        self._lines.write(
            {
                "epoch": batches[0].epoch,
                "step": batches[0].step,
                "view": views[0] if len(views) == 1 else views,
                "micro_batches": [batch.index for batch in batches],
                "ids": [int(i) for batch in batches for i in batch.rows.ids],
                "plan_crc": [int(crc) for batch in batches for crc in batch.rows.crc()],
                "image_crc": [zlib.crc32(image.numpy()) for batch in batches for image in batch.images.cpu()],
            }
        )

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def drop_stale_traces(folder: Path, start_step: int) -> None:
    """Remove lines from `start_step` on in every rank's file: a run may go on with fewer ranks than it had."""
    for path in folder.glob("rank-*.jsonl"):
        drop_lines_from(path, start_step)
