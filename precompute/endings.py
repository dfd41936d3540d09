"""How a job ends early: what is still worth finishing, and what a person can do about an error."""

import time
from pathlib import Path

from pipeline.core.errors import RefluxError, StoreError
from pipeline.data.index import Index
from precompute.work import Unit
from precompute.writer import cannot_write
from stores.errors import StoreFormatError

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


def with_remedy(error: BaseException, store: Path) -> BaseException:
    """The RefluxError that says what a person can do about `error`, where that is known; else `error` itself."""
    if isinstance(error, StoreFormatError):
        return StoreError(str(error))
    if isinstance(error, OSError) and error.errno is not None:
        return cannot_write(store, error)
    if isinstance(error, RuntimeError) and "gloo" in str(error):
        return RefluxError(
            "the connection to another rank broke: it was killed (out of memory?), or its machine is gone.\n"
            f"Start the same command again; sealed shards are not made again. ({str(error).splitlines()[0]})"
        )
    return error


def say_gray(index: Index, replaced: tuple[int, ...]) -> None:
    """Name the images that could not be decoded."""
    for sample_id in sorted(set(replaced)):
        print(f"image {index.path_of(sample_id)} (id {sample_id}) is unreadable: gray", flush=True)
