"""What a benchmark is: a frozen dataclass whose fields are its flags, and whose `run()` measures.

Its module imports what measuring needs inside `run()`, so that `--help` does without torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

from benchmarks._shared.pairs import say
from benchmarks._shared.show import save_report
from pipeline.core.errors import ConfigError, DataError, RefluxError, unknown_name
from pipeline.core.fields import About, abouts, check_numbers, flag
from pipeline.core.ranges import ABOVE_0

Images = Annotated[
    Path, About("Folder with a folder of images per class, or with train/ and val/, of which train/ is taken.")
]
Threads = Annotated[int | None, About("Decoder threads (default: all cores).", ABOVE_0)]

_SPLITS = {"train", "val"}


@dataclass(frozen=True)
class Benchmark(ABC):
    """Measures one claim.

    A field that is `free` is not among the report's settings: it says where to, or what is measured beside the rest.
    `data` is a folder of class folders, and `work` a folder that exists, in every benchmark that has them.
    """

    _: KW_ONLY
    json: Annotated[Path | None, About("File for all figures, with machine and versions.", free=True)] = None

    @abstractmethod
    def run(self) -> dict[str, Any]:
        """Measure, show tables, and return all figures as JSON; checks that failed are listed as "failed".

        Raises:
            RefluxError: before anything is measured where a flag or the data will not do.
        """

    def settings(self) -> dict[str, Any]:
        """What was measured, as JSON; folders by their name and that of the folder they lie in: "train" says little."""
        told = abouts(type(self))
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            name: "/".join(value.absolute().parts[-2:]) if isinstance(value, Path) else value
            for name, value in values.items()
            if name not in told or not told[name].free
        }


def perform(benchmark: Benchmark) -> None:
    """Check, run, write the report.

    Raises:
        ConfigError: a number outside its range, nothing to measure, a report that exists, no such `work`.
        DataError: no such `data`.
        RefluxError: checks have failed; names all that have.
    """
    benchmark = _checked(benchmark)
    report = benchmark.run()
    if benchmark.json is not None:
        save_report(benchmark.json, report)
    failed = report.get("failed")
    if failed:
        raise RefluxError(f"{len(failed)} failed: {'; '.join(failed)}\nThe table above and --json FILE say how.")


def _checked(benchmark: Any) -> Benchmark:
    """The benchmark, with the folder of the classes for `data`: a wrong flag must not cost minutes of measuring."""
    check_new_file("--json", benchmark.json)
    check_numbers(benchmark)
    for item in fields(benchmark):
        if getattr(benchmark, item.name) == () != item.default:
            raise ConfigError(f"{flag(item.name)} names nothing to measure: give one value or more")
    data, work = (getattr(benchmark, name, None) for name in ("data", "work"))
    if work is not None and not work.is_dir():
        raise ConfigError(f"--work {work} must be a folder that exists: make it first, or leave --work out")
    return benchmark if data is None else replace(benchmark, data=class_folders(data))


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
