"""A device that is done at once waits for every launch: a dry run on it must say so, and what would help."""

from null_device.workers import Worker

_FLAGS = (
    "--device cuda --dry-run --teacher resnet34@random --amp fp16 --backend synthetic --synthetic-samples 256"
    " --synthetic-classes 10 --resolution 32 --batch 8"
)
_SCRIPT = f"""
import contextlib, io
from launch.imagenet import parse_config
from pipeline.fit import fit
shown = io.StringIO()
with contextlib.redirect_stdout(shown):
    fit(parse_config(["kd_r34_r18", "--out", str(place.folder / "run"), *{_FLAGS.split()!r}]))
answer(shown.getvalue())
"""


def test_a_dry_run_says_that_the_device_is_likely_to_wait_for_launches(worker: Worker) -> None:
    shown = " ".join(worker.run("script", [_SCRIPT, False, 1]).split())
    assert "the device is likely to wait for the host" in shown
    assert "micro-batches of 8 images" in shown
    assert "--cuda-graphs teacher" in shown
    assert "nothing was saved" in shown
