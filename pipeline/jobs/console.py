"""What a person sees while a run goes on: a rich progress bar in a terminal, plain lines elsewhere. Rank 0 only."""

import time
from collections.abc import Iterable
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pipeline.core.command import Lines
from pipeline.data.index import Index

_LINE_EVERY_S = 10.0


class RunConsole:
    """Progress of a run in samples, with speed, share of time spent waiting for data, loss terms and ETA.

    Args:
        enabled: false on ranks that stay silent.
        total_steps: steps of the whole run.
        first_step: steps already done.
        batch: samples per step, over all ranks.
    """

    def __init__(self, *, enabled: bool, total_steps: int, first_step: int, batch: int) -> None:
        self._lines = Lines(enabled=enabled)
        self._console = self._lines.rich
        self._live = enabled and self._console.is_terminal
        self._total, self._batch = total_steps, batch
        self._first, self._started = first_step, time.perf_counter()
        self._last_line = self._started
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task("train", total=total_steps, completed=first_step, note="")

    def __enter__(self) -> "RunConsole":
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._progress.stop()

    def say(self, text: str) -> None:
        """One line."""
        self._lines.say(text)

    def train(
        self,
        step: int,
        epoch: int,
        metrics: dict[str, float],
        *,
        weights: dict[str, float],
        images_per_s: float,
        wait: str,
    ) -> None:
        """Show progress after `step` steps; the loss's terms are shown times their `weights`, so that they add up."""
        losses = _describe_losses(metrics, weights)
        note = f"{images_per_s:,.0f} img/s | data wait {wait} | {losses} | top-1 {100 * metrics['top1']:.1f} %"
        if self._live:
            self._progress.update(self._task, completed=step, description=f"epoch {epoch}", note=escape(note))
            return
        now = time.perf_counter()
        if now - self._last_line >= _LINE_EVERY_S or step == self._total:
            self._last_line = now
            self.say(f"step {step}/{self._total} | epoch {epoch} | {note} | ETA {self._eta(step, now)}")

    def evaluating(self, done: int, num_rounds: int) -> None:
        """Show how far an evaluation has come."""
        if self._live:
            self._progress.update(self._task, description="evaluating", note=f"batch {done}/{num_rounds}")

    def table(self, title: str, rows: list[tuple[str, str]]) -> None:
        """A two-column table."""
        table = Table(title=title, show_header=False, title_justify="left")
        for row in rows:
            table.add_row(*map(Text, row))
        self._console.print(table)

    def _eta(self, step: int, now: float) -> str:
        done = step - self._first
        if done <= 0:
            return "?"
        left_s = int((now - self._started) / done * (self._total - step))
        return f"{left_s // 3600}:{left_s // 60 % 60:02d}:{left_s % 60:02d}"


def _describe_losses(metrics: dict[str, float], weights: dict[str, float]) -> str:
    """Such as "loss 3.100 = ce 2.300 + kd 0.800 | temperature 4.000"."""
    parts = [f"{name} {weight * metrics[name]:.3f}" for name, weight in weights.items() if name in metrics]
    total = " = ".join((f"loss {metrics['loss']:.3f}", *([" + ".join(parts)] if len(parts) > 1 else [])))
    return f"{total} | temperature {metrics['temperature']:.3f}" if "temperature" in metrics else total


def summary_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The lines of a run's final table."""
    rows = [
        ("student", str(summary["student"])),
        ("teacher", str(summary["teacher"] or "none (labels only)")),
        ("method", f"{summary['method']} {summary['method_args'] or ''}".strip()),
        ("steps, epochs", f"{summary['steps']:,}, {summary['epochs']:.4g}"),
    ]
    if summary["last"]:
        rows += [
            ("top-1, last", f"{summary['last']['top1']:.2f} %"),
            ("top-1, best", f"{summary['best']['top1']:.2f} % (epoch {summary['best']['epoch']:.4g})"),
            ("top-5, last", f"{summary['last']['top5']:.2f} %"),
            ("cross-entropy, last", f"{summary['last']['ce']:.4f}"),
        ]
    if summary["last"] and "ema_top1" in summary["last"]:
        rows.append(("top-1 of the average, last", f"{summary['last']['ema_top1']:.2f} %"))
    rows += [
        ("speed", f"{summary['images_per_s']:,.0f} images/s, {summary['data_wait_share']:.0%} of it waiting for data"),
        ("time", f"{summary['seconds']:,.0f} s"),
        ("replaced images", str(summary["replaced_images"])),
        ("student weights", str(summary["weights"])),
    ]
    return rows


def say_gray(index: Index, ids: Iterable[int]) -> None:
    """Name images that could not be decoded, on the rank that met them."""
    for sample_id in ids:
        print(f"image {index.path_of(sample_id)} (id {sample_id}) is unreadable: gray", flush=True)
