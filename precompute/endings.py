"""How a job ends early: what is still worth finishing, and what a person can do about an error."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.core.errors import RefluxError
from pipeline.data.index import Index
from pipeline.engine.run_directory import Attempt
from precompute.work import Unit
from precompute.writer import cannot_write

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
def remedies(store: Path) -> Iterator[None]:
    """Turn what a person can do something about into a RefluxError that says what.

    Raises:
        StoreError: a file of the store cannot be read or written.
        RefluxError: another rank is gone.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        if str(error.filename).startswith(str(store)):
            raise cannot_write(store, error) from error
        raise RefluxError(f"the operating system refused a file: {error}.\nStart the same command again.") from error
    except RuntimeError as error:
        if "gloo" not in str(error):
            raise
        raise RefluxError(
            "the connection to another rank broke: it was killed (out of memory?), or its machine is gone.\n"
            f"Start the same command again; sealed shards are not made again. ({str(error).splitlines()[0]})"
        ) from error


@contextmanager
def noted_failures(attempt: Attempt) -> Iterator[None]:
    """Say in a job's state.json how the block failed, unless another rank has.

    Raises:
        PeerError: another rank failed first, and told it.
    """
    try:
        yield
    except BaseException as error:
        with suppress(OSError):  # a disk that cannot be read must not take the place of the message
            attempt.note_failure(error)
        raise


def say_gray(index: Index, replaced: tuple[int, ...]) -> None:
    """Name the images that could not be decoded."""
    for sample_id in sorted(set(replaced)):
        print(f"image {index.path_of(sample_id)} (id {sample_id}) is unreadable: gray", flush=True)
