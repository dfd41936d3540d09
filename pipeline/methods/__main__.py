"""List the methods: python -m pipeline.methods."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pipeline.core.command import run_command
from pipeline.methods.base import R34_R18
from pipeline.methods.parts import STAGES
from pipeline.methods.summary import PAIRS, MethodSummary, summarise


def main() -> None:
    """Print the table."""
    Console().print(table_of(summarise()))


def table_of(methods: list[MethodSummary]) -> Table:
    """A row for each method."""
    table = Table(box=SIMPLE_HEAD, caption="trainable: millions of parameters beside the student's; (n): n parameters")
    table.add_column("method", no_wrap=True)
    for heading in ("of the teacher", "of the student", "store"):
        table.add_column(heading)
    for pair in PAIRS:
        table.add_column(f"{pair}\ntrainable", justify="right")
        table.add_column("published top-1, %")
    table.add_column("paper", no_wrap=True)
    for method in methods:
        pairs = [cell for pair in PAIRS for cell in (_millions(method.parameters[pair]), _published(method, pair))]
        table.add_row(
            method.name, _taps(method.teacher), _taps(method.student), _store(method), *pairs, method.info.paper
        )
    return table


def _published(method: MethodSummary, pair: str) -> str:
    figures = method.info.published.get(pair, "-")
    if pair != R34_R18:
        return figures
    return "\n".join(
        [figures, *(f"{other}: {value}" for other, value in method.info.published.items() if other not in PAIRS)]
    )


def _taps(names: tuple[str, ...]) -> str:
    """Names joined by commas, all four stages as one."""
    for suffix in ("", ".pre"):
        stages = {f"{stage}{suffix}" for stage in STAGES}
        if stages <= set(names):
            names = (*(name for name in names if name not in stages), f"stage1..4{suffix}")
    return ", ".join(names) or "-"


def _store(method: MethodSummary) -> str:
    if not method.teacher:
        return "-"
    return " or ".join(method.stores) or "online only"


def _millions(count: int) -> str:
    return f"{count / 1e6:.3g}" if count == 0 or count >= 1000 else f"({count})"


if __name__ == "__main__":
    run_command(main)
