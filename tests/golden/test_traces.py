"""What a seeded run sees and what it loses: ids, views, boxes and pixels of three backends, and 50 losses.

With a checkout of commit 97e98b7, `PYTHONPATH=CHECKOUT:tests python tests/golden/test_traces.py` has written both. The
images of `photos` are files, so that every encoder's version reads the same bytes. Ids, views and the plan's checksums
are compared everywhere; the pixels' where decoder, resize and processor are those of the recording, since others may
make other low bits.
"""

import json
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from recorded import ONE_CORE, PHOTOS, STUDENT, TEACHER, arithmetic, check_equal, is_here, losses_of, read, train, write

from pipeline.core.errors import MissingPackageError

TRACES, CURVE = (Path(__file__).with_name(name) for name in ("traces.json", "curve.json"))
DECODERS = {"torchvision": "simplejpeg", "dali": "nvidia-dali-cuda130", "ffcv": "ffcv"}
TRACE_LINE = (
    f"smoke {STUDENT} {TEACHER} {ONE_CORE} --policy imagenet_train --train-dir {PHOTOS} --val-dir {PHOTOS}"
    " --eval-batch 12 --batch 4 --micro-batches 2 --epochs 2"
)
CURVE_LINE = f"smoke {ONE_CORE} --synthetic-samples 320 --micro-batches 2 --epochs 5 --log-every 1"


@pytest.mark.parametrize("backend", DECODERS)
def test_a_run_sees_what_it_saw(backend: str, tmp_path: Path) -> None:
    recorded = read(TRACES)[backend]
    try:
        found, pixels = trace(backend, tmp_path)
    except MissingPackageError as error:
        pytest.skip(str(error))
    assert found == recorded["seen"]
    if recorded["pixels_by"] == decoder(backend):
        assert pixels == recorded["pixels"], "equal decoders make other pixels than they did"


def test_fifty_steps_lose_what_they_lost(tmp_path: Path) -> None:
    recorded, found = read(CURVE), curve(tmp_path)
    made_with, losses = recorded["made_with"], recorded["losses"]
    # where other kernels round otherwise, the difference grows from step to step
    compared = len(losses) if is_here(made_with) else 10
    check_equal(found[:compared], losses[:compared], made_with, f"losses of the first {compared} of 50 steps")
    assert [line["step"] for line in found] == list(range(1, 51))


def trace(backend: str, folder: Path) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Lines of --trace without pixels, and the checksums of pixels."""
    assert train(TRACE_LINE, "--backend", backend, "--out", folder / "run", "--trace", folder / "trace") == 0
    lines = [json.loads(line) for line in (folder / "trace" / "rank-00000.jsonl").read_text().splitlines()]
    pixels = [line.pop("image_crc") for line in lines]
    return lines, pixels


def decoder(backend: str) -> dict[str, Any]:
    """What decides a backend's low bits."""
    return {**arithmetic(), **{name: _version(name) for name in ("torchvision", "pillow", DECODERS[backend])}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def curve(folder: Path) -> list[dict[str, float]]:
    assert train(CURVE_LINE, "--out", folder / "run") == 0
    return losses_of(folder / "run")


def record() -> None:
    with tempfile.TemporaryDirectory() as folder:
        losses = curve(Path(folder))
        write(CURVE, {"made_with": arithmetic(), "losses": losses})
    traces: dict[str, Any] = {}
    for backend in DECODERS:
        with tempfile.TemporaryDirectory() as folder:
            seen, pixels = trace(backend, Path(folder))
        traces[backend] = {"pixels_by": decoder(backend), "seen": seen, "pixels": pixels}
    write(TRACES, traces)


if __name__ == "__main__":
    record()
