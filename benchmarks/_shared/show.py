"""What a person sees of a benchmark, and the file that is kept of it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._shared.pairs import Pairs, format_figure
from pipeline.core.atomic import publish_text


def show_pairs(title: str, names: tuple[str, str], results: Sequence[Pairs]) -> list[dict[str, Any]]:
    """A row for each comparison: both medians, their ratio, and the ratio of each pair. Returns all as JSON."""
    table = Table(title=title, title_justify="left")
    for column in ("", *names, "ratio", "ratios of the pairs"):
        table.add_column(column, justify="right" if column else "left")
    rows = [pairs.to_json() for pairs in results]
    for row in rows:
        figures = (format_figure(row["median_a"]), format_figure(row["median_b"]), f"{row['ratio']:.3f}")
        table.add_row(row["name"], *figures, " ".join(f"{ratio:.2f}" for ratio in row["ratios"]))
    if rows:
        Console().print(table)
    return rows


def show_figures(title: str, figures: Mapping[str, float]) -> None:
    """A row for each figure."""
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in figures.items():
        table.add_row(name, format_figure(value))
    Console().print(table)


def save_report(path: Path, report: dict[str, Any]) -> None:
    """Write the report with the machine's description."""
    from benchmarks._shared.machine import describe_machine  # torch takes seconds, and `--help` must not

    publish_text(path, json.dumps({"machine": describe_machine(), **report}, indent=1))
    Console().print(f"written: {path}")
