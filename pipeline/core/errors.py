"""Errors a user can do something about.

    RefluxError                  exit code 1
    |-- ConfigError              exit code 2: a flag, a name, a value
    |   `-- MissingPackageError  exit code 2: an optional package; the message holds its pip line
    |-- DataError                index, images, backends
    |   `-- BadImageError        one image that cannot be decoded, with its id and path
    |-- ArraysError              a file of mapped arrays
    |-- StoreError               teacher outputs on disk
    |   `-- StoreRowError        rows whose bytes are not those that were written, with view and ids
    |-- CheckpointError          what a resumed run finds
    `-- PeerError              another rank failed first and has told it

A message says the rule, the value found and the remedy; a mismatch shows both sides. Anything that is not a RefluxError
is a defect of Reflux and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class RefluxError(Exception):
    """Base of all errors with a remedy."""

    exit_code = 1


class ConfigError(RefluxError):
    """What was asked for cannot be."""

    exit_code = 2


class MissingPackageError(ConfigError):
    """An optional package is not installed."""

    def __init__(self, what: str, install: str) -> None:
        super().__init__(f"{what} is not installed here. Install it with:\n    {install}")


class DataError(RefluxError):
    """The data set is not what it should be."""


class BadImageError(DataError):
    """One image failed to decode."""

    def __init__(self, sample_id: int, path: str, reason: str) -> None:
        super().__init__(
            f"image {path} (sample id {sample_id}) cannot be decoded: {reason}\n"
            "Replace the file, or drop it with `launch/prepare.py index --bad skip`,"
            " or go on with `--on-bad-image gray`."
        )
        self.sample_id, self.path, self.reason = sample_id, path, reason


class ArraysError(RefluxError):
    """A file of mapped arrays cannot be read as what it should be; the message names file, rule and remedy."""


class StoreError(RefluxError):
    """Teacher outputs on disk are missing, damaged or of another run."""


class StoreRowError(StoreError):
    """Rows whose bytes are not those that were written.

    Attributes:
        view: their view.
        ids: their sample ids.
    """

    def __init__(self, message: str, *, view: int, ids: tuple[int, ...]) -> None:
        super().__init__(message)
        self.view, self.ids = view, ids


class CheckpointError(RefluxError):
    """A checkpoint is missing, damaged or of another run."""


class PeerError(RefluxError):
    """Another rank of the job failed; its message is the one to read."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that is not in a registry: lists the known ones, suggests the nearest."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return ConfigError(f"unknown {kind} '{name}'.{hint}\nKnown: {', '.join(names)}")
