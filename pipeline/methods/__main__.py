"""List the methods, or those that are named: python -m pipeline.methods [METHOD ...]."""

import argparse
import sys
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pipeline.core.command import run_command
from pipeline.core.errors import unknown_name
from pipeline.losses._shared.registry import loss_record
from pipeline.methods._shared.registry import method_names
from pipeline.methods._shared.size import trained_parameters
from pipeline.methods._shared.summary import PAIRS, markdown, published, reads, store, top1


def main() -> None:
    """Print the table, and what it leaves out."""
    names, as_markdown = asked_for(sys.argv[1:])
    if as_markdown:
        print(markdown(names))
    else:
        Console().print(listing(names))


def asked_for(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The methods that a command line (without the program's name) names, all where it names none; whether in Markdown.

    Raises:
        ConfigError: an unknown one.
        SystemExit: after --help (0) or a flag (2).
    """
    parser = argparse.ArgumentParser(prog="python -m pipeline.methods", description=__doc__, allow_abbrev=False)
    known = method_names()
    parser.add_argument("method", nargs="*", metavar="METHOD", help=f"one of {', '.join(known)} (default: all)")
    parser.add_argument(
        "--markdown", action="store_true", help="docs/methods.md's table, without the numbers of parameters"
    )
    given = parser.parse_args(arguments)
    for name in given.method:
        if name not in known:
            raise unknown_name("method", name, known)
    return given.method or known, given.markdown


def listing(names: list[str]) -> Group:
    """A table that fits a terminal of 80 columns; below it each method's paper and all published figures."""
    return Group(_table(names), *(_sources(name) for name in names))


def _table(names: list[str]) -> Table:
    pairs = ", ".join(f"{short} is {pair}" for short, pair in PAIRS.items())
    caption = f"{pairs}. Trained: millions of parameters beside the student's; (1) is one number. ~: not looked up."
    table = Table(box=SIMPLE_HEAD, caption=caption, padding=(0, 1, 0, 0), caption_justify="left")
    for heading in ("method", "reads of teacher", "store"):
        table.add_column(heading, overflow="fold")
    for heading in ("trained", "top-1"):
        for short in PAIRS:
            table.add_column(f"{heading}\n{short}", justify="right", no_wrap=True)
    trained = [trained_parameters(names, pair) for pair in PAIRS.values()]
    for name in names:
        loss = loss_record(name, {})
        figures = (top1(loss.published.get(pair, "")).partition(" ")[0] for pair in PAIRS.values())
        table.add_row(name, reads(loss), store(loss), *(_millions(counts[name]) for counts in trained), *figures)
    return table


def _sources(name: str) -> Text:
    loss = loss_record(name, {})
    return Text(f"{name}: {'; '.join((loss.paper, *published(loss)))}", style="dim")


def _millions(count: int) -> str:
    return f"{count / 1e6:.3g}" if count == 0 or count >= 1000 else f"({count})"


if __name__ == "__main__":
    run_command(main)
