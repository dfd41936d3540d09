"""What a benchmark is: a frozen dataclass whose fields are its flags, and whose `run()` measures.

Its module imports what measuring needs inside `run()`, so that `--help` does without torch.
"""

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from benchmarks._shared.checks import check_new_file, class_folders
from benchmarks._shared.show import save_report
from pipeline.core.errors import ConfigError, RefluxError
from pipeline.core.fields import About, abouts, check_numbers, flag
from pipeline.core.ranges import ABOVE_0

Images = Annotated[
    Path, About("Folder with a folder of images per class, or with train/ and val/, of which train/ is taken.")
]
Threads = Annotated[int | None, About("Decoder threads (default: all cores).", ABOVE_0)]


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


def benchmark_in(module: ModuleType) -> type[Benchmark]:
    """The benchmark that a module of `benchmarks` defines."""
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Benchmark)]
    return next(kind for kind in kinds if kind is not Benchmark)


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
