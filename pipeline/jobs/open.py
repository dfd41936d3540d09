"""A job from its lock to its final state: `with open_job(...) as job:`, for training and for filling alike."""

import errno
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from pipeline.config import Device
from pipeline.core.command import own_rank
from pipeline.core.errors import PeerError, RefluxError
from pipeline.devices.world import World, start_world, stop_world
from pipeline.jobs.attempt import Attempt
from pipeline.jobs.lock import RunLock
from pipeline.jobs.signals import StopRequest

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


class Job:
    """One process's part of a run or of a filling.

    Args:
        folder: of the run or job, with its state.json.
        is_dry: nothing is kept: the job has a temporary folder in the place of its own.

    Attributes:
        folder: where the job writes.
        attempt: what it says of itself in state.json.
        stop: whether a signal asks it to end.
        world: its ranks, once it has joined them.
    """

    world: World

    def __init__(self, folder: Path, *, is_dry: bool) -> None:
        self.folder, self.is_dry, self.stop = folder, is_dry, StopRequest()
        self.stop.install()
        self._rank = own_rank()
        self.attempt, self._lock, self._place = Attempt(folder, self._rank, muted=is_dry), RunLock(folder), ExitStack()

    def join(self, device: Device, threads: int | None) -> World:
        """Meet the other ranks. A collective call.

        Raises:
            ConfigError: a device that is not there.
            RefluxError: another start holds the folder's lock.
        """
        self.world = start_world(device, threads)
        if self.world.gather(self._lock.refusal is not None)[0]:
            self.attempt.mute()
            raise self._lock.refusal or PeerError("rank 0 was refused the run's lock, and says it")
        if self.is_dry:
            self.folder = self._place.enter_context(scratch_folder(self.world, self.folder))
        return self.world

    def _lock_and_accept(self, *, locked: bool, is_new: bool) -> None:
        if locked and self._rank == 0 and not self.is_dry:
            self._lock.take()
        if is_new and self._lock.refusal is None:
            self.attempt.accept()


@contextmanager
def open_job(folder: Path, *, kept: str, is_dry: bool, locked: bool = False, is_new: bool = False) -> Iterator[Job]:
    """A job: its signals, the folder's lock, its ranks, and how it fails.

    Args:
        folder: of the run or job.
        kept: what a job that is cut off has kept, for the message that says so.
        is_dry: write nothing.
        locked: one start at a time.
        is_new: nothing else lives in the folder, so that state.json may tell of this start from the beginning.

    Raises:
        RefluxError: in place of an error of disk or network, with its remedy.
        PeerError: another rank failed first, and told it.
    """
    job = Job(folder, is_dry=is_dry)
    try:
        job._lock_and_accept(locked=locked, is_new=is_new)
        with job._place:
            yield job
    except BaseException as error:
        failure = with_remedy(error, folder, kept)
        with suppress(OSError):  # a disk that cannot be read must not take the place of the message
            job.attempt.note_failure(failure)
        if failure is error:
            raise
        raise failure from error
    finally:
        job._lock.release()
    stop_world(job.world)


def with_remedy(error: BaseException, folder: Path, kept: str) -> BaseException:
    """The RefluxError that says what a person can do about `error`, where that is known; else `error` itself."""
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return RefluxError(
            f"the operating system refused a file of {folder}: {error}\n"
            f"Free space, or repair disk and permissions, and start the same command again; {kept}."
        )
    if isinstance(error, RuntimeError) and "gloo" in str(error):
        return RefluxError(
            "the connection to another rank broke: it was killed (out of memory?), or its machine is gone.\n"
            f"Start the same command again; {kept}. ({str(error).splitlines()[0]})"
        )
    return error


@contextmanager
def scratch_folder(world: World, folder: Path | None = None) -> Iterator[Path]:
    """A temporary folder in the place of `folder`, for a command that saves nothing; indexes that it has are used.

    All ranks share it: on one machine it is in the usual place, for several it lies beside `folder`. A collective call.
    """
    is_shared = len(set(world.gather(socket.gethostname()))) > 1
    above = [] if folder is None or not is_shared else folder.absolute().parents
    beside = next((path for path in above if path.is_dir()), None)
    with tempfile.TemporaryDirectory(prefix="reflux-", dir=beside) if world.is_main else nullcontext() as own:
        if own is not None and folder is not None:
            _link_indexes(folder / "index", Path(own) / "index")
        yield Path(world.gather(own)[0])
        world.barrier()


def _link_indexes(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.glob("[!.]*"):
        (target / path.name).symlink_to(path.absolute())
