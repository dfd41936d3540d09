"""List the methods, or those that are named: python -m pipeline.methods [METHOD ...]."""

import argparse
import re
import sys
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pipeline.core.command import run_command
from pipeline.core.errors import unknown_name
from pipeline.methods.base import R34_R18, R50_MV1
from pipeline.methods.parts import STAGES
from pipeline.methods.registry import method_names
from pipeline.methods.summary import PAIRS, MethodSummary, summarise

_SHORT = {R34_R18: "34>18", R50_MV1: "50>MBv1"}
_FIRST_FIGURE = re.compile(r"(\d+\.\d+)( \([^)]*unchecked\))?")


def main() -> None:
    """Print the table, and what it leaves out."""
    names = named_methods(sys.argv[1:])
    Console().print(listing([method for method in summarise() if method.name in names]))


def named_methods(arguments: Sequence[str]) -> list[str]:
    """The methods that a command line (without the program's name) asks for; all where it names none.

    Raises:
        ConfigError: an unknown one.
        SystemExit: after --help (0) or a flag (2).
    """
    parser = argparse.ArgumentParser(prog="python -m pipeline.methods", description=__doc__, allow_abbrev=False)
    known = method_names()
    parser.add_argument("method", nargs="*", metavar="METHOD", help=f"one of {', '.join(known)} (default: all)")
    names: list[str] = parser.parse_args(arguments).method
    for name in names:
        if name not in known:
            raise unknown_name("method", name, known)
    return names or known


def listing(methods: list[MethodSummary]) -> Group:
    """A table that fits a terminal of 80 columns; below it each method's paper and all published figures."""
    return Group(_table(methods), *(_sources(method) for method in methods))


def _table(methods: list[MethodSummary]) -> Table:
    pairs = ", ".join(f"{short} is {pair}" for pair, short in _SHORT.items())
    caption = f"{pairs}. Trained: millions of parameters beside the student's; (1) is one number. ~: not looked up."
    table = Table(box=SIMPLE_HEAD, caption=caption, padding=(0, 1, 0, 0), caption_justify="left")
    for heading in ("method", "reads of teacher", "store"):
        table.add_column(heading, overflow="fold")
    for heading in ("trained", "top-1"):
        for pair in PAIRS:
            table.add_column(f"{heading}\n{_SHORT[pair]}", justify="right", no_wrap=True)
    for method in methods:
        trained = [_millions(method.parameters[pair]) for pair in PAIRS]
        table.add_row(method.name, _taps(method.teacher), _store(method), *trained, *(_top1(method, p) for p in PAIRS))
    return table


def _sources(method: MethodSummary) -> Text:
    figures = (f"{pair}: {value}" for pair, value in method.info.published.items())
    return Text(f"{method.name}: {'; '.join((method.info.paper, *figures))}", style="dim")


def _top1(method: MethodSummary, pair: str) -> str:
    """The first published figure, which is that of the method's own authors where they give one; ~ if unchecked."""
    figure = _FIRST_FIGURE.search(method.info.published.get(pair, ""))
    return f"{'~' if figure[2] else ''}{figure[1]}" if figure else "-"


def _taps(names: tuple[str, ...]) -> str:
    """Names joined by commas, all four stages as one."""
    for suffix in ("", ".pre"):
        stages = {f"{stage}{suffix}" for stage in STAGES}
        if stages <= set(names):
            names = (*(name for name in names if name not in stages), f"stage1-4{suffix}")
    return ", ".join(names) or "-"


def _store(method: MethodSummary) -> str:
    if not method.teacher:
        return "-"
    return ", ".join(method.stores) or "online only"


def _millions(count: int) -> str:
    return f"{count / 1e6:.3g}" if count == 0 or count >= 1000 else f"({count})"


if __name__ == "__main__":
    run_command(main)
