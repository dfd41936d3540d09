"""What a benchmark refuses before it measures anything."""

from collections.abc import Iterable
from pathlib import Path

from benchmarks._shared.pairs import say
from pipeline.core.errors import ConfigError, DataError, unknown_name

_SPLITS = {"train", "val"}


def check_new_file(flag: str, path: Path | None) -> None:
    """Refuse a file that exists, or whose folder does not.

    Raises:
        ConfigError: with flag and path.
    """
    if path is None:
        return
    if path.exists():
        raise ConfigError(f"{flag} {path} exists; nothing is overwritten: choose another file")
    if not path.parent.is_dir():
        raise ConfigError(f"{flag} {path} must lie in a folder that exists, and {path.parent} does not: make it first")


def check_names(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that are not `known`, the nearest of which is suggested.

    Raises:
        ConfigError: with what it is a name of.
    """
    known = tuple(known)
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)


def class_folders(data: Path) -> Path:
    """The folder that holds a folder of images per class: `data`, or its train/ where it holds train/ and val/ alone.

    Raises:
        DataError: no such folder.
    """
    if not data.is_dir():
        raise DataError(f"no such folder: {data}\nImages are expected in {data}/<class name>/<file>.")
    folders = {entry.name for entry in data.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    if folders == _SPLITS and any(entry.is_dir() for entry in (data / "train").iterdir()):
        say(f"{data} holds train/ and val/: taking {data / 'train'}")
        return data / "train"
    return data
