"""What a person sees of a benchmark, and the file that is kept of it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.pairs import Pairs, format_figure
from pipeline.core.atomic import publish_text


def sayer() -> Callable[[str], None]:
    """Shows a line; brackets stay text."""
    return Console(highlight=False, soft_wrap=True, markup=False).print


def encoded(settings: Any) -> dict[str, Any]:
    """A settings dataclass as JSON; folders by their name and that of the folder they lie in: "train" says little."""
    shown = asdict(settings)
    return {
        key: "/".join(value.absolute().parts[-2:]) if isinstance(value, Path) else value for key, value in shown.items()
    }


def show_pairs(title: str, names: tuple[str, str], results: Sequence[Pairs]) -> None:
    """A row for each comparison: both medians, their ratio, and the ratio of each pair."""
    table = Table(title=title, title_justify="left")
    for column in ("", *names, "ratio", "ratios of the pairs"):
        table.add_column(column, justify="right" if column else "left")
    for pairs in results:
        row = pairs.to_json()
        figures = (format_figure(row["median_a"]), format_figure(row["median_b"]), f"{pairs.ratio:.3f}")
        table.add_row(pairs.name, *figures, " ".join(f"{ratio:.2f}" for ratio in pairs.ratios))
    Console().print(table)


def show_figures(title: str, figures: dict[str, float]) -> None:
    """A row for each figure."""
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in figures.items():
        table.add_row(name, format_figure(value))
    Console().print(table)


def save_report(path: Path | None, report: dict[str, Any], describe: Callable[[], dict[str, Any]]) -> None:
    """Write the report with the machine's description, where a file was named."""
    if path is None:
        return
    publish_text(path, json.dumps({"machine": describe(), **report}, indent=1))
    Console().print(f"written: {path}")
