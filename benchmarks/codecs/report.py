"""The rate-distortion table for terminals, and as a picture."""

from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.codecs.measure import Distortion, TeacherRows
from pipeline.core.atomic import publish

_LEAST = 1e-12  # of a logarithmic axis


def title_of(settings: dict[str, Any], rows: TeacherRows) -> str:
    """What the figures were measured on, by a report's settings, and whether the teacher knows anything."""
    name, _, weights = settings["teacher"].partition("@")
    trained = "RANDOM WEIGHTS, NOT TRAINED" if weights == "random" else f"weights {weights}"
    return (
        f"{name} ({trained}), {len(rows.logits):,} views of {settings['data']} at {settings['resolution']} px, "
        f"{rows.weight.shape[0]} classes, embedding {rows.weight.shape[1]}, top-1 {rows.top1:.1f} %"
    )


def codecs_table(title: str, lines: list[Distortion]) -> Table:
    """A line a codec."""
    caption = "GB of an ImageNet view; errors of the gradient, relative"
    table = Table(title=title, title_justify="left", caption=caption, box=SIMPLE_HEAD, padding=0, show_edge=False)
    headings = ("codec", "bytes", "GB", "KL, nats", "same top-1, %", *lines[0].gradient_errors)
    rows = [_cells(line) for line in lines]
    for heading, cells in zip(headings, zip(*rows, strict=True), strict=True):
        justify: Literal["left", "right"] = "left" if heading == "codec" else "right"
        table.add_column(heading, justify=justify, width=max(map(len, (*cells, *heading.split()))))
    for row in rows:
        table.add_row(*row)
    return table


def _cells(line: Distortion) -> tuple[str, ...]:
    errors = (f"{error:.1e}" for error in line.gradient_errors.values())
    figures = (f"{line.row_bytes:,}", f"{line.imagenet_gb:.2f}", f"{line.kl:.1e}", f"{line.top1_kept:.1f}")
    return (line.codec, *figures, *errors)


def draw_codecs(path: Path, title: str, lines: list[Distortion]) -> None:
    """Write a PNG: bytes a row against KL, and against each loss's gradient error, both axes logarithmic."""
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    rates = [line.row_bytes for line in lines]
    left.scatter(rates, [max(line.kl, _LEAST) for line in lines])
    for line in lines:
        place = (line.row_bytes, max(line.kl, _LEAST))
        left.annotate(line.codec, place, textcoords="offset points", xytext=(5, 4), fontsize=8)
    for number, loss in enumerate(lines[0].gradient_errors):
        right.scatter(rates, [line.gradient_errors[loss] for line in lines], marker="os^D"[number % 4], label=loss)
    left.set(title="mean KL(teacher || decoded), nats", xlabel="bytes a row")
    right.set(title="relative error of the student's gradient", xlabel="bytes a row")
    right.legend()
    for axes in (left, right):
        axes.set(xscale="log", yscale="log")
        axes.grid(alpha=0.3)
    with publish(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
