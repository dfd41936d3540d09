"""Runs the sections, each in a process of its own, within one deadline: a crash or a hang costs its section alone."""

import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks._shared.pairs import say
from benchmarks.gpu.findings import NO_TIME, Outcome, Setting, unproven
from benchmarks.gpu.processes import Waiting, last_line
from benchmarks.gpu.sections import FULL_S, Section
from pipeline.core.errors import ConfigError

_GRACE_S = 20.0  # that a part may go on after its section's time, before its process is killed
_LOG_CHARS = 3000
_FILE_COLUMNS = 160
_EIGHT_MINUTES_S = 480.0
_COLOURS = {"passed": "green", "failed": "bold red", "measured": "", "unproven": "yellow"}


@dataclass(frozen=True)
class Result:
    """What one section found.

    Attributes:
        section: which.
        outcomes: by part, in order.
        seconds: that it took.
        log: the end of what its process printed.
    """

    section: Section
    outcomes: dict[str, Outcome]
    seconds: float = 0.0
    log: str = ""

    def describe(self) -> str:
        """What is said as it ends: how many parts found what, and each that failed."""
        verdicts = [outcome.verdict for outcome in self.outcomes.values()]
        counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
        failed = [f"  {name}: {found.text}" for name, found in self.outcomes.items() if found.verdict == "failed"]
        return "\n".join([f"{self.section.name}: {self.seconds:.0f} s; {counts}", *failed])

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        outcomes = {name: asdict(outcome) for name, outcome in self.outcomes.items()}
        return {"title": self.section.title, "seconds": self.seconds, "parts": outcomes, "log": self.log}


def check_device() -> None:
    """Refuse a machine without a GPU.

    Raises:
        ConfigError: with what the other benchmarks measure.
    """
    if not torch.cuda.is_available():
        raise ConfigError(
            "`python -m benchmarks gpu` needs a CUDA device, and torch sees none here: see nvidia-smi.\n"
            "The other benchmarks run on processors."
        )


def measure_gpu(setting: Setting, sections: Sequence[Section], minutes: float) -> dict[str, Any]:
    """Run the sections, show the table, and report."""
    started = time.monotonic()
    results = run_suite(sections, setting, 60 * minutes * FULL_S / _EIGHT_MINUTES_S)
    seconds = time.monotonic() - started
    settings = {"size": setting.size, "data": setting.data is not None, "minutes": minutes, "seconds": seconds}
    return conclude(results, f"{torch.cuda.get_device_name()}, {setting.size}, {seconds:.0f} s in all", settings)


def conclude(results: Sequence[Result], title: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Show the table; return the report, with all checks that have failed."""
    Console(width=None if sys.stdout.isatty() else _FILE_COLUMNS).print(table_of(title, results))
    sections = {result.section.name: result.to_json() for result in results}
    return {"settings": settings, "failed": failures(results), "sections": sections}


def run_suite(sections: Sequence[Section], setting: Setting, seconds: float) -> list[Result]:
    """Every section in turn; those that the deadline leaves no time for say so.

    While one runs, the next one's process is started already: imports take seconds each.
    """
    ends, results = time.monotonic() + seconds, []
    with ExitStack() as stack:
        process = start_section(sections[0], setting, stack)
        for section, following in zip(sections, [*sections[1:], None], strict=True):
            coming = None if following is None else start_section(following, setting, stack)
            result = run_section(section, setting, process, section.limit_s * seconds / FULL_S, ends)
            results.append(result)
            say(result.describe())
            process = coming or process
    return results


def start_section(section: Section, setting: Setting, stack: ExitStack) -> Waiting:
    """A process that waits for the number of its seconds; ended with the stack."""
    words = [section.name, json.dumps(setting.to_json()), str(_results_of(section, setting))]
    process = Waiting(["-m", "benchmarks.gpu", *words], _log_of(section, setting))
    stack.callback(process.end)
    return process


def run_section(section: Section, setting: Setting, process: Waiting, limit_s: float, ends: float) -> Result:
    """One section in its process, which is killed some seconds after its limit or the end of all, of `time.monotonic`.

    Longer than its limit is a failure; cut short by the end of all it had no time.
    """
    started = time.monotonic()
    left_s = ends - started
    if left_s < 1:
        return Result(section, {section.title: unproven(NO_TIME)})
    given_s = min(limit_s, left_s)
    code = process.run(f"{given_s:.1f}", given_s + _GRACE_S)
    printed = _log_of(section, setting).read_text(errors="replace")[-_LOG_CHARS:]
    outcomes = outcomes_of(_results_of(section, setting), code, printed, cut_short=left_s < limit_s)
    return Result(section, outcomes, time.monotonic() - started, printed)


def _results_of(section: Section, setting: Setting) -> Path:
    return setting.work / f"{section.name}.jsonl"


def _log_of(section: Section, setting: Setting) -> Path:
    return setting.work / f"{section.name}.log"


def outcomes_of(results: Path, code: int | None, log: str, *, cut_short: bool = False) -> dict[str, Outcome]:
    """By part: what a section's process has written, and of the rest how it ended."""
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    unfinished = unproven(NO_TIME) if code is None and cut_short else Outcome("failed", _ending(code, log))
    if not lines:
        return {"start": unfinished}
    found: dict[str, Outcome] = {}
    for line in lines[1:]:  # a part that has only begun stays unfinished
        found[line["part"]] = unfinished if line["outcome"] is None else Outcome(**line["outcome"])
    missing = unproven("not reached: the process had ended")
    return {name: found.get(name, missing) for name in lines[0]["parts"]}


def _ending(code: int | None, log: str) -> str:
    if code is None:
        return "took too long and was killed"
    return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}: {last_line(log)}"


def failures(results: Sequence[Result]) -> list[str]:
    """The checks that failed, as section: part."""
    return [
        f"{result.section.name}: {name}"
        for result in results
        for name, outcome in result.outcomes.items()
        if outcome.verdict == "failed"
    ]


def table_of(title: str, results: Sequence[Result]) -> Table:
    """A row for each part."""
    table = Table(title=title, title_justify="left")
    for column in ("section", "part", "", "found"):
        table.add_column(column, overflow="fold")
    table.add_column("s", justify="right")
    for result in results:
        for number, (name, outcome) in enumerate(result.outcomes.items()):
            verdict = Text(outcome.verdict, style=_COLOURS[outcome.verdict])
            section = "" if number else result.section.title
            table.add_row(section, name, verdict, Text(outcome.text), f"{outcome.seconds:.1f}")
        table.add_section()
    return table
