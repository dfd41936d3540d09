"""Look at a store, check every byte of it, or make its store.h5 again.

python -m stores show   STORE
python -m stores verify STORE
python -m stores verify STORE --data DIR --teacher NAME@WEIGHTS --rows 64
python -m stores index  STORE
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.core.command import progress, run_command
from pipeline.core.errors import ConfigError, StoreError
from stores.errors import StoreFormatError
from stores.index_file import write_index
from stores.layout import STORE_FILE
from stores.problems import Problem
from stores.show import ViewsState, describe_store, view_states
from stores.verify import verify_store

_SHOWN = 50
_Store = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STORE")]
_Folder = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
_File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]


def show(store: _Store) -> None:
    """What a store holds: teacher, views, codecs, how it was made. Reads no rows.

    Args:
        store: Folder of the store.
    """
    with _store_errors():
        facts, states = describe_store(store), view_states(store)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]{escape(str(store))}[/]")
    console.print(_facts_table(facts))
    console.print(_views_table(states))


def verify(
    store: _Store,
    data: _Folder = None,
    train_dir: _Folder = None,
    index: _File = None,
    beton: _File = None,
    teacher: Annotated[str | None, tyro.conf.arg(metavar="NAME@WEIGHTS", help_behavior_hint="")] = None,
    rows: int = 64,
    seed: int = 0,
    backend: str = "auto",
    dali_decoder: Literal["auto", "cpu", "mixed"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None,
) -> None:
    """Check every row's checksum, the manifest and the folder; with --teacher also compute some rows again.

    Ends with 0 where all is well, with 1 and the list of what is not.

    Args:
        store: Folder of the store.
        data: Folder of the data set, with train/ in it: for --teacher.
        train_dir: Training images, where they are not in DATA/train.
        index: Index file of the training images.
        beton: FFCV file with the training images.
        teacher: The store's teacher: its outputs for --rows rows are computed again and compared.
        rows: Random rows to compute again, spread evenly over the complete views.
        seed: Which random rows.
        backend: What makes their pixels (auto: what made the store's; another one's rows may diverge as in training).
        dali_decoder: What dali decodes with for a CUDA device (auto: what decoded the store's, where that was dali).
        device: Where the teacher runs; auto takes CUDA where it is.
        threads: Decoder threads (default: all cores).
    """
    if teacher is None and any(path is not None for path in (data, train_dir, index, beton)):
        raise ConfigError("images are for computing rows again: give --teacher NAME@WEIGHTS too, or leave them out")
    console = Console(soft_wrap=True, highlight=False)
    with ExitStack() as stack:
        opened = None
        if teacher is not None:  # before the checksums: they take hours, and a wrong flag should not
            from precompute.audit import AuditSettings, open_audit  # torch takes seconds, and `--help` must not

            settings = AuditSettings(
                teacher, data, train_dir, index, beton, rows, seed, backend, device, threads, dali_decoder
            )
            opened = stack.enter_context(open_audit(store, settings))
        with _store_errors(), progress("verify", "rows") as on_progress:
            found = verify_store(store, on_progress=on_progress)
        if opened is not None and not any(problem.kind == "problem" for problem in found):
            with progress("compute again", "rows") as on_progress:
                report = opened.compare(on_progress)
            for line in report.lines():
                console.print(Text(line))
            found += report.problems
    _end(store, found, console)


def index(store: _Store) -> None:
    """Make store.h5 again from the shards, which are the truth.

    Args:
        store: Folder of the store.
    """
    with _store_errors():
        write_index(store)
        states = view_states(store)
    complete = sum(state.num_views for state in states if state.complete)
    begun = sum(state.num_views for state in states)
    Console(soft_wrap=True, highlight=False).print(f"{store / STORE_FILE}: {complete} of {begun} views are complete")


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except StoreFormatError as error:
        raise StoreError(str(error)) from error


def _end(store: Path, found: list[Problem], console: Console) -> None:
    """List what was found; damage is an error."""
    notes = [finding for finding in found if finding.kind == "note"]
    problems = [finding for finding in found if finding.kind == "problem"]
    for finding in notes[:_SHOWN]:
        console.print(Text(f"note: {finding}"))
    if len(notes) > _SHOWN:
        console.print(f"and {len(notes) - _SHOWN:,} more notes")
    if not problems:
        console.print(f"{store}: whole")
        return
    lines = [str(problem) for problem in problems[:_SHOWN]]
    more = [f"and {len(problems) - _SHOWN:,} more"] if len(problems) > _SHOWN else []
    raise StoreError("\n".join([f"{store} has {len(problems):,} problem(s):", *lines, *more]))


def _facts_table(facts: list[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, Text(value))
    return table


def _views_table(states: list[ViewsState]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("views", "state", "number", "shards of each", "rows of each", "bytes of all"):
        table.add_column(name, justify="left" if name in ("views", "state") else "right")
    for state in states:
        word = "complete" if state.complete else "incomplete"
        shards = f"{state.num_shards:,} of {state.num_shards_wanted:,}"
        table.add_row(state.views, word, f"{state.num_views:,}", shards, f"{state.num_rows:,}", f"{state.num_bytes:,}")
    table.add_row("all", "", f"{sum(state.num_views for state in states):,}", *_sums(states))
    return table


def _sums(states: list[ViewsState]) -> tuple[str, str, str]:
    shards = sum(state.num_views * state.num_shards for state in states)
    rows = sum(state.num_views * state.num_rows for state in states)
    return f"{shards:,} in all", f"{rows:,} in all", f"{sum(state.num_bytes for state in states):,}"


def main() -> None:
    """Parse the command line and run one of the three commands."""
    commands: dict[str, Callable[..., None]] = {"show": show, "verify": verify, "index": index}
    tyro.extras.subcommand_cli_from_dict(commands, prog="python -m stores", description=__doc__)


if __name__ == "__main__":
    run_command(main)
