"""How the command-line programs talk to a person: progress while they work, one message and an exit code at the end."""

import difflib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NoReturn

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pipeline.core.errors import ConfigError, PeerError, RefluxError

OnProgress = Callable[[int, int], None]
Outcome = Literal["done", "preempted"]
EXIT_PREEMPTED = 75
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_PLAIN_INTERVAL_S = 5.0


def run_command(main: Callable[[], object]) -> NoReturn:
    """Run `main` and end the process: 0 when it returns, 75 when it returns "preempted" (run me again), a RefluxError's
    own code and message, 130 after Ctrl-C.

    Any other exception is a defect of Reflux and keeps its traceback.
    """
    try:
        outcome = main()
    except PeerError as error:
        sys.exit(error.exit_code)  # the message to read is another rank's
    except RefluxError as error:
        print_error(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print_error("interrupted")
        sys.exit(_INTERRUPTED)
    sys.exit(EXIT_PREEMPTED if outcome == "preempted" else 0)


def own_rank() -> int:
    """This process's rank in its job, as torchrun says; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def speaks() -> bool:
    """Whether this process is the one that says what every rank of its job finds alike."""
    return own_rank() == 0


@contextmanager
def said_once(kind: type[RefluxError] = RefluxError) -> Iterator[None]:
    """Errors of a kind that every rank finds alike in the block are said by rank 0 alone.

    Raises:
        PeerError: in their place, on the other ranks; with their exit code.
    """
    try:
        yield
    except kind as error:
        if speaks():
            raise
        silent = PeerError("rank 0 finds the same, and says it")
        silent.exit_code = error.exit_code
        raise silent from error


def print_error(message: str) -> None:
    """Write `error: message` to stderr, red on a terminal; paths stay on one line and brackets stay text."""
    Console(stderr=True, soft_wrap=True).print(Text(f"error: {message}", style="red"))


class Lines:
    """Single lines for a person; brackets in them are text.

    Args:
        enabled: false on ranks that stay silent.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.rich = Console(quiet=not enabled, highlight=False, soft_wrap=not sys.stdout.isatty())

    def say(self, text: str) -> None:
        """One line."""
        self.rich.print(Text(text))

    def warn(self, text: str) -> None:
        """One line that should not be overlooked."""
        self.rich.print(Text(f"warning: {text}", style="yellow"))


def print_table(names: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> None:
    """Rows of text below the columns' names, the first `left` columns words, the others numbers; nothing is cut off."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, name in enumerate(names):
        table.add_column(name, justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def format_bytes(size: float, decimals: int = 2) -> str:
    """12.34 MB and the like, in powers of 1,000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.{0 if unit == 'bytes' else decimals}f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"


def unknown_argument(command: str, argument: str, flags: Sequence[str]) -> ConfigError:
    """The error for a flag or a word that `command` does not take: suggests the nearest of its `flags`."""
    given, remedy = argument.partition("=")[0], f"`{command} --help` lists its flags."
    if not given.startswith("-"):
        return ConfigError(f"'{argument}' belongs to no flag of {command}: take it out, or name its flag.\n{remedy}")
    names = [flag.strip("-") for flag in flags]
    name = given.strip("-").replace("_", "-")
    near = [other for other in names if _abbreviates(name, other)] or difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean --{near[0]}?" if near else ""
    return ConfigError(f"{command} has no flag {given}.{hint}\n{remedy}")


def _abbreviates(one: str, other: str) -> bool:
    """Whether one name is made of the other's initials: lr and learning-rate."""
    words, others = one.split("-"), other.split("-")
    return "".join(word[:1] for word in words) == other or "".join(word[:1] for word in others) == one


@contextmanager
def progress(title: str, unit: str) -> Iterator[OnProgress]:
    """Yield a function of (done, total) that shows a bar on a terminal, and elsewhere a line every five seconds."""
    console = Console()
    if not console.is_terminal:
        yield _plain_lines(title, unit)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain_lines(title: str, unit: str) -> OnProgress:
    started = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PLAIN_INTERVAL_S or done == total:
            last = now
            print(f"{title}: {done:,} of {total:,} {unit}, {now - started:.0f} s", flush=True)

    return show
