"""Checkpoints: complete or absent, checksummed, written beside the running step.

    RUN/checkpoints/step-00001200.pt     everything a run needs to go on
    RUN/checkpoints/step-00001200.json   its CRC-32, bytes and step; written after it
    RUN/checkpoints/latest.json          the newest complete one; moved last
    RUN/best.pt                          the checkpoint with the best validation top-1

A checkpoint is a dictionary of tensors, numbers, strings and lists (read with weights_only=True):

    version, step, config (JSON), fingerprints of the data sets and of the store
    module       state_dict of student and method (BatchNorm: mean over ranks)
    statistics   (W, K) every rank's own BatchNorm buffers, so that the same world size continues bit for bit
    optimizer, scaler, ema
    progress     evaluations so far, images that were gray, seconds of training

There is no random state and no loader state in it: both are functions of (seed, step), see `pipeline.core.rng`.
The learning rate is a function of the step, see `optim.learning_rate`.
"""

import json
import os
import shutil
import threading
import zlib
from pathlib import Path
from typing import Any

import torch

from pipeline.core.atomic import fsync_path, publish, publish_text
from pipeline.core.errors import CheckpointError
from pipeline.devices.streams import HostCopy, copy_to_host

CHECKPOINT_VERSION = 1
_BLOCK_BYTES = 1 << 24


class CheckpointWriter:
    """Writes checkpoints in a background thread, one at a time, and keeps the newest few.

    Args:
        run: the run directory.
        keep: number of checkpoints to keep.
    """

    def __init__(self, run: Path, keep: int) -> None:
        self._run, self._folder, self._keep = run, run / "checkpoints", keep
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(self, state: dict[str, Any], *, is_best: bool) -> None:
        """Copy `state` off the device and start writing it; waits only for the write before it.

        The copies are enqueued on the device's current stream: the next step may change the originals at once, and
        the host goes on without waiting.
        """
        self.wait()
        snapshot = copy_to_host(state)
        self._thread = threading.Thread(target=self._write, args=(snapshot, is_best), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the write in progress is durable; raises its error.

        Raises:
            CheckpointError: the disk refused (full, read-only, gone); earlier checkpoints are untouched.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise CheckpointError(
                f"a checkpoint could not be written to {self._folder}: {error}\n"
                "Earlier checkpoints are whole; free space or repair the disk and start the same command again."
            ) from error

    def _write(self, copied: HostCopy[dict[str, Any]], is_best: bool) -> None:
        try:
            snapshot = copied.wait()
            step = int(snapshot["step"])
            path = self._folder / f"step-{step:08d}.pt"
            write_checked(path, snapshot)
            if is_best:
                _link(path, self._run / "best.pt")
            publish_text(self._folder / "latest.json", json.dumps({"file": path.name, "step": step}))
            self._forget(path)
        except Exception as error:
            self._error = error

    def _forget(self, newest: Path) -> None:
        older = sorted(self._folder.glob("step-*.pt"))
        for path in [path for path in older if path != newest][: -self._keep + 1 or None]:
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)


def write_checked(path: Path, content: dict[str, Any]) -> None:
    """`torch.save` to `path`, atomically, with its CRC-32 in a .json file beside it."""
    check_path = path.with_suffix(".json")
    with publish(path) as temporary:
        torch.save(content, temporary)
        check = {"crc32": _crc_of(temporary), "bytes": temporary.stat().st_size, "step": content.get("step")}
        if check_path.exists():
            # a step is saved again when an evaluation followed: whichever of its two files a kill or a full disk
            # leaves behind, that file's checksum is there
            publish_text(check_path, json.dumps({**_read_check(check_path), "next": check}))
    publish_text(check_path, json.dumps(check))


def read_checked(path: Path) -> dict[str, Any]:
    """Load what `write_checked` wrote, onto the CPU.

    Raises:
        CheckpointError: missing, truncated, damaged, or of a newer version.
    """
    try:
        check = _read_check(path.with_suffix(".json"))
        found = {"crc32": _crc_of(path), "bytes": path.stat().st_size}
        if not any(found.items() <= written.items() for written in (check, check.get("next", {}))):
            raise CheckpointError(f"checkpoint {path} is damaged: its CRC-32 or size is not what was written")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error
    if content.get("version") != CHECKPOINT_VERSION:
        raise CheckpointError(
            f"checkpoint {path} has version {content.get('version')}, this program reads {CHECKPOINT_VERSION}"
        )
    return content


def _read_check(path: Path) -> dict[str, Any]:
    """What is written beside a checkpoint; {} where it is damaged, which no file then matches."""
    try:
        check = json.loads(path.read_text())
    except ValueError:
        return {}
    return check if isinstance(check, dict) else {}


def find_latest(run: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest checkpoint of a run that is whole (None where there is none), and what was wrong with newer ones.

    Falling back to an older checkpoint costs time and nothing else: the same steps come again.

    Raises:
        CheckpointError: there are checkpoints and none of them can be read.
    """
    candidates = sorted((run / "checkpoints").glob("step-*.pt"), reverse=True)
    problems: list[str] = []
    for path in candidates:
        if not path.with_suffix(".json").exists():
            continue  # killed between the two renames: never counted as written
        try:
            return read_checked(path), problems
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        remedy = "Restore one of them from a copy, or move the folder away to start from the beginning."
        raise CheckpointError("\n".join([*problems, remedy]))
    return None, problems


def _link(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # not every file system has hard links
        shutil.copyfile(source, temporary)
        fsync_path(temporary)
    temporary.replace(target)
    fsync_path(target.parent)


def _crc_of(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            crc = zlib.crc32(block, crc)
    return crc


def check_fingerprints(state: dict[str, Any], now: dict[str, str | None]) -> None:
    """Refuse to go on with other data than the checkpoint's; `now` is what this start reads."""
    for name, found in now.items():
        saved = state["fingerprints"].get(name)
        if saved != found:
            what = "store is not that" if name == "store" else f"{name} data are not those"
            raise CheckpointError(
                f"the {what} that this run began with (fingerprints differ).\n"
                f"  checkpoint: {saved}\n  now:        {found}\n"
                "Give the run its data again, or choose another --out for a new run."
            )
