"""A run's folder: new, or one to go on with; never somebody else's.

RUN/config.json      the resolved configuration
RUN/state.json       running | done | failed | usage | preempted, with a message
RUN/metrics.jsonl    one line per logged step and evaluation
RUN/summary.json     the result
RUN/curves.png       losses, accuracies, learning rate
RUN/student.pt       the trained student's weights (and student_ema.pt)
RUN/best.pt          the checkpoint with the best validation top-1
RUN/checkpoints/     what a restart continues from
RUN/tensorboard/     the same metrics for TensorBoard
RUN/lock             who trains here now; empty between starts
RUN/index/           dataset indexes, where none were prepared
"""

import errno
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig, first_difference
from pipeline.core.atomic import is_temporary, publish_text
from pipeline.core.errors import CheckpointError, ConfigError, PeerError, RefluxError
from pipeline.data.datasets import Datasets
from pipeline.devices.world import World
from pipeline.engine.journal import STATE_FILE, read_state, write_state
from pipeline.engine.run_lock import LOCK_FILE
from pipeline.teachers.choice import TeacherChoice

_STATE_FILES = {STATE_FILE, LOCK_FILE, "index", "launch.log"}
_REFUSAL_FILE = ".refusal.tmp"  # a leftover by its name: the next attempt removes it
_DISK_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOTDIR,
    errno.EEXIST,
}
_WAIT_FOR_MAIN_S, _POLL_S = 2.0, 0.02
_STARTED = time.time()
_SKEW_S = 10.0  # between the starts and the clocks of the ranks of one attempt


def read_saved_config(run: Path) -> RunConfig | None:
    """The configuration of the run that lives in `run`, or None for a folder that is new.

    Raises:
        ConfigError: the folder holds something else.
        CheckpointError: its config.json cannot be read.
    """
    path = run / "config.json"
    if path.exists():
        try:
            return RunConfig.from_json(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); restore it, or choose another --out") from error
    entries = [entry for entry in run.iterdir() if not is_temporary(entry)] if run.is_dir() else []
    foreign = sorted(entry.name for entry in entries if entry.name not in _STATE_FILES)
    if foreign:
        raise ConfigError(
            f"--out {run} exists and is not a run of Reflux (no config.json; it holds {foreign[:5]}).\n"
            "Nothing is overwritten: choose another folder."
        )
    return None


def is_same_run(saved: RunConfig, now: RunConfig, run: Path, world: World) -> bool:
    """Whether `now` goes on with the run; false where it begins anew what failed before its first checkpoint.

    A collective call.

    Raises:
        ConfigError: another configuration, and there are results to lose; names the first field that differs.
    """
    difference = first_difference(saved, now)
    if difference is None:
        return True
    name, before, after = difference
    if world.gather(_has_results(run))[0]:
        raise ConfigError(
            f"{run} holds a run with another configuration; first difference: {name}\n"
            f"  saved: {before}\n  now:   {after}\n"
            "Start the saved command again to go on with it, or choose another --out for a new run."
        )
    if world.is_main:
        print(f"{run} has no checkpoint: begun anew with another configuration ({name}: {before}, now {after})")
    return False


def _has_results(run: Path) -> bool:
    exported = ("best.pt", "student.pt", "student_ema.pt", "summary.json")
    checkpoints = (run / "checkpoints").glob("step-*.json")
    return any(checkpoints) or any((run / name).exists() for name in exported)


def remove_failed_start(run: Path) -> None:
    """Remove what a start left that ended before its first checkpoint. Main rank only."""
    for name in ("metrics.jsonl", "curves.png"):
        (run / name).unlink(missing_ok=True)
    for name in ("tensorboard", "checkpoints"):
        if (run / name).exists():
            shutil.rmtree(run / name)


def remove_leftovers(run: Path) -> None:
    """Remove what a killed start left half written: each may be as large as a checkpoint. Main rank only, first."""
    for folder in (run, run / "checkpoints", run / "index"):
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


@contextmanager
def scratch_folder(world: World, run: Path | None = None) -> Iterator[Path]:
    """A temporary folder in the place of `run`, for a command that saves nothing; indexes that `run` has are used.

    All ranks share it: on one machine it is in the usual place, for several it lies beside `run`. A collective call.
    """
    is_shared = len(set(world.gather(socket.gethostname()))) > 1
    beside = next(path for path in run.absolute().parents if path.is_dir()) if run is not None and is_shared else None
    with tempfile.TemporaryDirectory(prefix="reflux-", dir=beside) if world.is_main else nullcontext() as own:
        if own is not None and run is not None:
            _link_indexes(run / "index", Path(own) / "index")
        yield Path(world.gather(own)[0])
        world.barrier()


def _link_indexes(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.glob("[!.]*"):
        (target / path.name).symlink_to(path.absolute())


def save_config(config: RunConfig, run: Path) -> None:
    """Write RUN/config.json."""
    publish_text(run / "config.json", json.dumps(config.to_json(), indent=1))


def begin_attempt(run: Path, rank: int) -> None:
    """Say in RUN/state.json that a start or restart has begun: what an earlier one left there is over."""
    if rank == 0:
        remove_leftovers(run)
        write_state(run, "running", "preparing")


class Attempt:
    """One start of a run or job, and when it may say so in the folder's state.json.

    A folder's state is what job scripts read of the run that lives there, so a command that turns out not to be that
    run's (a misspelt flag, other data) leaves it alone: nothing is written there before `accept`.

    Args:
        folder: of the run or job.
        rank: of this process.
        muted: write nothing at all, as a dry run.
    """

    def __init__(self, folder: Path, rank: int, *, muted: bool = False) -> None:
        self._folder, self._rank, self._muted = folder, rank, muted
        self.is_known = (folder / STATE_FILE).exists()
        self.is_accepted = False
        if rank == 0 and not muted:
            with suppress(OSError):
                (folder / _REFUSAL_FILE).unlink(missing_ok=True)

    def accept(self) -> None:
        """The command is this run's: from now on state.json tells of this attempt. Every rank says so, once or more."""
        if not self.is_accepted and not self._muted:
            begin_attempt(self._folder, self._rank)
        self.is_accepted = True

    def mute(self) -> None:
        """Write nothing: the folder is another start's."""
        self._muted = True

    def note_failure(self, error: BaseException) -> None:
        """Say how the attempt failed: in state.json once it is accepted; before that, to the other ranks at most.

        Raises:
            PeerError: another rank failed first, and told it.
        """
        if self._muted:
            return
        usage = isinstance(error, ConfigError)
        if self.is_accepted or not (self.is_known or usage):
            note_failure(self._folder, error, self._rank)
        elif self.is_known and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            note_failure(self._folder, error, self._rank, file=_REFUSAL_FILE)


def note_failure(run: Path, error: BaseException, rank: int, *, file: str = STATE_FILE) -> None:
    """Say in RUN/state.json how the run failed, unless another rank has: what follows from its failure is no news.

    Raises:
        PeerError: another rank failed first, and told it.
    """
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return
    told = _told_by_another(run, rank, file)
    if told:
        raise PeerError(f"rank {told.get('rank')} failed: {told['message']}") from error
    usage = isinstance(error, ConfigError)
    message = str(error) if isinstance(error, RefluxError) else f"{type(error).__name__}: {error}"
    with suppress(OSError):  # a full disk must not take the place of the message
        write_state(run, "usage" if usage else "failed", message, rank=rank, file=file)


def with_remedy(error: BaseException, run: Path) -> BaseException:
    """The RefluxError that says what a person can do about `error`, where that is known; else `error` itself."""
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return RefluxError(
            f"the operating system refused a file of the run {run}: {error}\n"
            "Free space, or repair disk and permissions, and start the same command again; checkpoints are whole."
        )
    if isinstance(error, RuntimeError) and "gloo" in str(error):
        return RefluxError(
            "the connection to another rank broke: it was killed (out of memory?), or its machine is gone.\n"
            f"Start the same command again; it goes on from the last checkpoint. ({str(error).splitlines()[0]})"
        )
    return error


def _told_by_another(run: Path, rank: int, file: str) -> dict[str, Any]:
    """What another rank has said about this attempt's failure; ranks that fail together leave it to rank 0."""
    end = time.monotonic() + (_WAIT_FOR_MAIN_S if rank else 0.0)
    while True:
        told = read_state(run, file=file)
        recent = told.get("time", 0.0) > _STARTED - _SKEW_S
        if told.get("state") in ("failed", "usage") and told.get("rank") != rank and recent:
            return told
        if time.monotonic() >= end:
            return {}
        time.sleep(_POLL_S)


def fingerprints(data: Datasets, choice: TeacherChoice) -> dict[str, str | None]:
    """What a run has read, for its checkpoints: the two data sets, and its store."""
    return {
        "train": data.train.index.fingerprint,
        "val": data.val.index.fingerprint,
        "store": choice.store_fingerprint,
    }


def check_fingerprints(state: dict[str, Any], now: dict[str, str | None]) -> None:
    """Refuse to go on with other data than the checkpoint's; `now` is what `fingerprints` says of this start."""
    for name, found in now.items():
        saved = state["fingerprints"].get(name)
        if saved != found:
            what = "store is not that" if name == "store" else f"{name} data are not those"
            raise CheckpointError(
                f"the {what} that this run began with (fingerprints differ).\n"
                f"  checkpoint: {saved}\n  now:        {found}\n"
                "Give the run its data again, or choose another --out for a new run."
            )
