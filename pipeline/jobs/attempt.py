"""One start of a run or job, and what it may say of itself in the folder's state.json."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.core.errors import ConfigError, PeerError, RefluxError
from pipeline.jobs.state import STATE_FILE, read_state, write_state

_REFUSAL_FILE = ".refusal.tmp"  # a leftover by its name: the next attempt removes it
_WAIT_FOR_MAIN_S, _POLL_S = 2.0, 0.02
_STARTED = time.time()
_SKEW_S = 10.0  # between the starts and the clocks of the ranks of one attempt
_LEFTOVERS = (".*.tmp", "checkpoints/.*.tmp", "index/.*.tmp")


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
            self._begin()
        self.is_accepted = True

    def _begin(self) -> None:
        """Say that a start or restart has begun, and remove what a killed one left half written."""
        if self._rank == 0:
            for path in (path for pattern in _LEFTOVERS for path in self._folder.glob(pattern)):
                path.unlink(missing_ok=True)
            write_state(self._folder, "running", "preparing")

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
        usage = isinstance(error, RefluxError) and error.exit_code == ConfigError.exit_code  # or another rank's
        if self.is_accepted or not (self.is_known or usage):
            note_failure(self._folder, error, self._rank)
        elif self.is_known and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            note_failure(self._folder, error, self._rank, file=_REFUSAL_FILE)


def note_failure(folder: Path, error: BaseException, rank: int, *, file: str = STATE_FILE) -> None:
    """Say in state.json how the job failed, unless another rank has: what follows from its failure is no news.

    Raises:
        PeerError: another rank failed first, and told it.
    """
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return
    told = _told_by_another(folder, rank, file)
    if told:
        raise PeerError(f"rank {told.get('rank')} failed: {told['message']}") from error
    usage = isinstance(error, ConfigError)
    message = str(error) if isinstance(error, RefluxError) else f"{type(error).__name__}: {error}"
    with suppress(OSError):  # a full disk must not take the place of the message
        write_state(folder, "usage" if usage else "failed", message, rank=rank, file=file)


def _told_by_another(folder: Path, rank: int, file: str) -> dict[str, Any]:
    """What another rank has said about this attempt's failure; ranks that fail together leave it to rank 0."""
    end = time.monotonic() + (_WAIT_FOR_MAIN_S if rank else 0.0)
    while True:
        told = read_state(folder, file=file)
        recent = told.get("time", 0.0) > _STARTED - _SKEW_S
        if told.get("state") in ("failed", "usage") and told.get("rank") != rank and recent:
            return told
        if time.monotonic() >= end:
            return {}
        time.sleep(_POLL_S)
