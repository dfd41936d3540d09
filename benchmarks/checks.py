"""What a benchmark refuses before it measures anything: a wrong flag must not cost the minutes before it matters."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pipeline.core.errors import ConfigError, DataError, unknown_name

_SPLITS = {"train", "val"}
_Numbers = float | tuple[int, ...] | None


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


def check_positive(numbers: Mapping[str, _Numbers], *, least: int = 1) -> None:
    """Refuse numbers below `least`, by flag; None is no number.

    Raises:
        ConfigError: with flag and value.
    """
    for flag, given in numbers.items():
        values = given if isinstance(given, tuple) else (given,)
        for value in values:
            if value is not None and not (value > 0 if isinstance(value, float) else value >= least):
                raise ConfigError(f"{flag} must be {'above 0' if least == 1 else f'{least} or more'}, got {value}")
        if not values:
            raise ConfigError(f"{flag} names nothing to measure: give one value or more")


def check_names(kind: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse names that are not `known`, the nearest of which is suggested.

    Raises:
        ConfigError: with what it is a name of.
    """
    known = tuple(known)
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)


def check_folder(flag: str, path: Path | None) -> None:
    """Refuse what is no folder.

    Raises:
        ConfigError: with flag and path.
    """
    if path is not None and not path.is_dir():
        raise ConfigError(f"{flag} {path} must be a folder that exists: make it first, or leave {flag} out")


def class_folders(data: Path, say: Callable[[str], None]) -> Path:
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
