"""Proof that DALI decodes on this machine's device, before a job depends on it.

A decoder that crashes takes the process with it (nvImageCodec 0.9 under DALI 2.3 is reported to, on an H100, in region
decodes of ordinary JPEGs: its issue 55; on an A100 it fails). So a child process decodes a few of the data set's own
images, and its pixels are compared with the reference's.

The child is this module: python -m pipeline.data.dali_proof FOLDER
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pipeline.data.backend import BackendOptions, DaliDecoding, Pixels, Source, open_backend
from pipeline.data.index import Index, load_index
from pipeline.data.order import permutation
from pipeline.data.plan import Plan, PlanRows
from pipeline.data.policy import get_policy
from pipeline.devices.streams import to_device

CHILD = (sys.executable, "-m", "pipeline.data.dali_proof")
LIMIT_S = 180.0  # most of it goes into importing and starting CUDA
RESOLUTION = 224
_SMALLEST, _LARGEST, _DRAWN = 8, 8, 24
_BATCH = 16
_FIXED_KEY = 55
_JOB, _INDEX, _ROWS, _PIXELS = "job.json", "index.h5", "rows.npz", "pixels.npy"


@dataclass(frozen=True)
class PixelTolerance:
    """How far pixels may be from the reference's.

    Attributes:
        mean: of the absolute difference of uint8 pixels.
        most: 99.9th percentile of the same.
    """

    mean: float
    most: float

    def refusal(self, images: np.ndarray, reference: np.ndarray) -> str | None:
        """Why `images` are too far from the reference; None where they are not."""
        mean, most = pixel_distance(images, reference)
        if mean <= self.mean and most <= self.most:
            return None
        return (
            f"pixels differ from the reference decoder's by {mean:.3g} on average ({self.mean:g} allowed),"
            f" 99.9 % of them by up to {most:.3g} ({self.most:g} allowed)"
        )


# Measured on generated and real photographs with DALI's CPU decoder: (0.15, 2) and (0.15, 3), see tests/parity
TOLERANCE = PixelTolerance(mean=0.2, most=4)


def pixel_distance(images: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Mean and 99.9th percentile of the absolute difference of uint8 pixels."""
    difference = np.abs(images.astype(np.int16) - reference.astype(np.int16))
    return float(difference.mean()), float(np.quantile(difference, 0.999))


def prove(
    index: Index,
    *,
    device: str,
    decoding: DaliDecoding,
    num_threads: int,
    child: Sequence[str] = CHILD,
    limit_s: float = LIMIT_S,
) -> str | None:
    """Let a child decode some images of `index` on `device`, and compare; takes about 10 s.

    Args:
        index: the data set.
        device: where pixels are wanted, such as "cuda:0".
        decoding: the decoder in question.
        num_threads: decoder threads.
        child: its command; the folder of the job is added.
        limit_s: after which it counts as hung, and is killed.

    Returns:
        None where the decoder can be trusted, else what happened, as the end of a sentence.
    """
    options = BackendOptions(RESOLUTION, num_threads, _BATCH, device, dali=decoding)
    part = some_images(index)
    rows, reference = _reference(part, options)
    if not len(rows):
        return f"the reference decoder reads none of {len(part)} images"
    with tempfile.TemporaryDirectory(prefix="reflux-proof-") as folder:
        _write_job(Path(folder), part, rows, options)
        reason = _run([*child, folder], limit_s)
        return reason or TOLERANCE.refusal(np.load(Path(folder) / _PIXELS), reference)


def some_images(index: Index) -> Index:
    """A few samples: the smallest and the largest files, and some that a fixed key draws."""
    by_size = np.argsort(index.sizes, kind="stable")
    drawn = permutation(len(index), _FIXED_KEY, 0)[:_DRAWN]
    return index.subset(np.unique(np.concatenate((by_size[:_SMALLEST], by_size[-_LARGEST:], drawn))))


def _reference(index: Index, options: BackendOptions) -> tuple[PlanRows, np.ndarray]:
    """Training views of the images that the reference decoder reads, and its pixels of them."""
    rows = Plan(get_policy("imagenet_train"), 0).rows(index.ids, index.ids * 0, index.widths, index.heights)
    on_host = replace(options, device="cpu", on_bad_image="gray")
    with closing(open_backend("torchvision", Source(index), on_host)) as backend:
        pixels = list(backend.stream(_requests(rows)))
    is_good = ~np.isin(rows.ids, [sample_id for part in pixels for sample_id in part.replaced])
    return rows.part(is_good), _joined(pixels, "cpu")[is_good]


def _write_job(folder: Path, index: Index, rows: PlanRows, options: BackendOptions) -> None:
    replace(index, root=index.root.absolute()).save(folder / _INDEX)
    np.savez(folder / _ROWS, **vars(rows))
    (folder / _JOB).write_text(json.dumps(asdict(options)))


def _run(command: list[str], limit_s: float) -> str | None:
    """What went wrong with the child; None where it has written its pixels."""
    paths = os.pathsep.join(path for path in sys.path if path)
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=limit_s,
            start_new_session=True,  # a Ctrl-C is for the job, not for what it tries
        )
    except subprocess.TimeoutExpired:
        return f"it has not decoded a few images in {limit_s:g} s"
    if done.returncode < 0:
        return f"it ended its process by {signal.Signals(-done.returncode).name}"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return f"it failed: {lines[-1] if lines else f'exit code {done.returncode}'}" if done.returncode else None


def decode_job(folder: Path) -> None:
    """The child: decode what the folder's job names, and leave the pixels there."""
    job = json.loads((folder / _JOB).read_text())
    options = BackendOptions(**{**job, "dali": DaliDecoding(**job["dali"])})
    with np.load(folder / _ROWS) as columns:
        rows = PlanRows(**columns)
    with closing(open_backend("dali", Source(load_index(folder / _INDEX)), options)) as backend:
        np.save(folder / _PIXELS, _joined(list(backend.stream(_requests(rows))), options.device))


def _requests(rows: PlanRows) -> list[PlanRows]:
    return [rows.part(slice(first, first + _BATCH)) for first in range(0, len(rows), _BATCH)]


def _joined(pixels: list[Pixels], device: str) -> np.ndarray:
    images = [to_device(part.images, torch.device(device)).cpu() for part in pixels]
    joined: np.ndarray = torch.cat(images).numpy()
    return joined


if __name__ == "__main__":
    decode_job(Path(sys.argv[1]))
