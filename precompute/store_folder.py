"""The store's folder as a job finds it and leaves it."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.core.atomic import is_temporary
from pipeline.core.command import speaks
from pipeline.core.errors import ConfigError
from pipeline.jobs.state import STATE_FILE
from stores.layout import HEAD_FILE, JOBS_FOLDER, STORE_FILE, VIEWS_FOLDER

_OWN = {HEAD_FILE, JOBS_FOLDER, STORE_FILE, VIEWS_FOLDER}
_OLD_S = 900.0  # a living job writes a batch at least as often


def check_folder(store: Path) -> None:
    """Refuse a folder that holds something else: nothing of it is touched.

    Raises:
        ConfigError: not a folder, or entries that no store has.
    """
    if store.exists() and not store.is_dir():
        raise ConfigError(f"--store {store} is a file; name a folder")
    found = [entry.name for entry in store.iterdir() if not is_temporary(entry)] if store.is_dir() else []
    foreign = sorted(set(found) - _OWN)
    if foreign and STORE_FILE not in found:
        raise ConfigError(
            f"--store {store} exists and is not a store of Reflux (no {STORE_FILE}; it holds {foreign[:5]}).\n"
            "Nothing is overwritten: choose another folder."
        )


@contextmanager
def left_as_found(store: Path, job: Path) -> Iterator[None]:
    """Take back the folder of a store that was not there, if the block refuses the command before the store is begun.

    Args:
        store: its folder.
        job: the job's folder in it.
    """
    was_there = store.exists()
    try:
        yield
    except ConfigError:
        if speaks() and not was_there and not (job / STATE_FILE).exists():
            shutil.rmtree(job, ignore_errors=True)
            with suppress(OSError):  # other jobs are at work there
                job.parent.rmdir()
                store.rmdir()
        raise


def remove_old_leftovers(store: Path) -> None:
    """Remove shards that killed jobs left half written; files that a living job may be writing stay."""
    for folder in (store, store / VIEWS_FOLDER):
        for path in folder.glob(".*.tmp" if folder == store else "*/.*.tmp"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _OLD_S:
                    path.unlink()
