"""How a job ends early: what is still worth finishing, and what a person can do about an error."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.command import Lines, Outcome
from pipeline.core.errors import RefluxError
from pipeline.jobs.open import Job
from pipeline.jobs.pulse import Totals
from pipeline.jobs.state import write_state
from precompute.setting import Setting
from precompute.work import Unit
from stores.index_file import cannot_write

_GRACE_S = 20.0  # schedulers give about 30 s between their signal and SIGKILL


class Pace:
    """Seconds a batch, and what can be finished in the time that a signal leaves.

    Args:
        batch: samples of a batch.
    """

    def __init__(self, batch: int) -> None:
        self._batch, self._done, self._started = batch, 0, time.monotonic()

    def note_batch(self) -> None:
        """A batch is done."""
        self._done += 1

    def can_finish(self, unit: Unit, first: int) -> bool:
        """Whether the unit, at row `first`, is begun and ends soon."""
        if first == unit.start or not self._done:
            return False
        batches = -(-(unit.stop - first) // self._batch)
        return batches * (time.monotonic() - self._started) / self._done < _GRACE_S


@contextmanager
def store_remedies(store: Path) -> Iterator[None]:
    """Turn what the operating system refuses into an error that says what a person can do.

    Raises:
        StoreError: a file of the store cannot be read or written.
        RefluxError: another file.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        if str(error.filename).startswith(str(store)):
            raise cannot_write(store, error) from error
        raise RefluxError(f"the operating system refused a file: {error}.\nStart the same command again.") from error


def job_done(job: Job, setting: Setting, totals: Totals) -> Outcome:
    """Say in state.json, and to a person, that all is there."""
    store = setting.config.store
    if setting.world.is_main:
        write_state(job.folder, "done", "", shards=totals.shards, rows=totals.rows)
    setting.say(f"{store}: views {setting.config.views} are there; look at it with: python -m stores show {store}")
    return "done"


def job_stopped(job: Job, signal: str | None, *, left: str) -> Outcome:
    """Say in state.json, and to a person, that a signal ended the job early."""
    message = f"stopped by {signal or 'a signal'}: {left} shard(s) of this job are left; the same command goes on"
    if job.world.is_main:
        write_state(job.folder, "preempted", message)
    Lines(enabled=job.world.is_main).say(message)
    return "preempted"
