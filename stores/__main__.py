"""Look at a store, check every byte of it, or make its store.h5 again.

python -m stores show   STORE

python -m stores verify STORE

python -m stores index  STORE

Rows are computed again, and compared, by python -m precompute audit STORE.
"""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.core.command import Lines, print_table, progress, run_command
from pipeline.core.errors import ConfigError
from stores.index_file import write_index
from stores.layout import STORE_FILE
from stores.problems import end_with
from stores.show import ViewsState, describe_store, view_states
from stores.verify import verify_store

_OF_AUDIT = {"--data", "--train-dir", "--index", "--beton", "--teacher", "--rows", "--seed"}  # and with one, the rest
_Store = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STORE")]


def show(store: _Store) -> None:
    """What a store holds: teacher, views, codecs, how it was made. Reads no rows.

    Args:
        store: Folder of the store.
    """
    facts, states = describe_store(store), view_states(store)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]{escape(str(store))}[/]")
    console.print(_facts_table(facts))
    _show_views(states)


def verify(store: _Store) -> None:
    """Check every row's checksum, the manifest and the folder.

    Ends with 0 where all is well, with 1 and the list of what is not.

    Args:
        store: Folder of the store.
    """
    with progress("verify", "rows") as on_progress:
        found = verify_store(store, on_progress=on_progress)
    end_with(store, found, Lines(enabled=True).say, whole="whole")


def index(store: _Store) -> None:
    """Make store.h5 again from the shards, which are the truth.

    Args:
        store: Folder of the store.
    """
    write_index(store)
    states = view_states(store)
    complete = sum(state.num_views for state in states if state.complete)
    begun = sum(state.num_views for state in states)
    Console(soft_wrap=True, highlight=False).print(f"{store / STORE_FILE}: {complete} of {begun} views are complete")


def _facts_table(facts: list[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, Text(value))
    return table


def _show_views(states: list[ViewsState]) -> None:
    names = ("views", "state", "number", "shards of each", "rows of each", "bytes of all")
    rows = [
        (
            state.views,
            "complete" if state.complete else "incomplete",
            f"{state.num_views:,}",
            f"{state.num_shards:,} of {state.num_shards_wanted:,}",
            f"{state.num_rows:,}",
            f"{state.num_bytes:,}",
        )
        for state in states
    ]
    print_table(names, [*rows, ("all", "", f"{sum(state.num_views for state in states):,}", *_sums(states))], left=2)


def _sums(states: list[ViewsState]) -> tuple[str, str, str]:
    shards = sum(state.num_views * state.num_shards for state in states)
    rows = sum(state.num_views * state.num_rows for state in states)
    return f"{shards:,} in all", f"{rows:,} in all", f"{sum(state.num_bytes for state in states):,}"


def _check_moved(arguments: list[str]) -> None:
    """Say where `verify --teacher` has gone."""
    moved = {argument.partition("=")[0] for argument in arguments} & _OF_AUDIT
    if arguments[:1] == ["verify"] and moved:
        raise ConfigError(
            f"`stores verify` checks bytes and takes no {min(moved)}; rows are computed again by\n"
            f"    python -m precompute audit {shlex.join(arguments[1:])}"
        )


def main() -> None:
    """Parse the command line and run one of the three commands."""
    _check_moved(sys.argv[1:])
    commands: dict[str, Callable[..., None]] = {"show": show, "verify": verify, "index": index}
    tyro.extras.subcommand_cli_from_dict(commands, prog="python -m stores", description=__doc__)


if __name__ == "__main__":
    run_command(main)
