"""What a person sees of a precompute job: a bar on a terminal, plain lines elsewhere, a table at the end."""

import time
from contextlib import suppress

from rich.progress import BarColumn, Progress, TextColumn

from pipeline.core.command import Lines, format_bytes, print_table
from pipeline.jobs.pulse import Totals
from pipeline.jobs.state import write_state
from precompute.config import parse_part
from precompute.setting import Setting
from precompute.work import Unit, count_rows, count_shards

_LINE_EVERY_S, _STATE_EVERY_S = 5.0, 30.0


class Report:
    """Progress over all ranks, on rank 0; silent on the others.

    Args:
        setting: the job's.
        units: what this job has to make.
    """

    def __init__(self, setting: Setting, units: list[Unit]) -> None:
        self._enabled, self._folder = setting.world.is_main, setting.folder
        self._shards, self._rows = count_shards(units), count_rows(units)
        self._console = Lines(enabled=self._enabled).rich
        self._live = self._enabled and self._console.is_terminal
        self._bar = Progress(BarColumn(bar_width=16), TextColumn("{task.fields[note]}"), console=self._console)
        self._task = self._bar.add_task("precompute", total=self._rows, note="starting")
        self._started = self._last_line = self._last_state = time.monotonic()

    def __enter__(self) -> "Report":
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since the first unit was begun."""
        return time.monotonic() - self._started

    def beat(self, totals: Totals) -> None:
        """Show how far all ranks have come."""
        if not self._enabled:
            return
        now, note = time.monotonic(), self._note(totals)
        if self._live:
            self._bar.update(self._task, completed=totals.rows, note=note)
        elif now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            self._console.print(f"precompute: {note}")
        if now - self._last_state >= _STATE_EVERY_S:
            self._last_state = now
            with suppress(OSError):  # the writer meets the same disk, and says so
                write_state(self._folder, "running", note)

    def _note(self, totals: Totals) -> str:
        speed = totals.rows / max(self.seconds, 1e-9)
        left = f"{format_duration((self._rows - totals.rows) / speed)} left" if totals.rows else "starting"
        return (
            f"{totals.shards} of {self._shards} shards | {speed:,.0f} images/s |"
            f" {format_bytes(totals.num_bytes)} written | {left}"
        )


def say_work(setting: Setting, units: list[Unit]) -> None:
    """What is to be made, by whom."""
    config, world, index = setting.config, setting.world, setting.source.index
    per_view = -(-len(index) // config.shard_rows)
    part = parse_part(config.part)
    share = "" if part.total == 1 else f" of part {part}"
    left, rows = count_shards(units), count_rows(units)
    setting.say(
        f"{config.teacher} at {config.pixels.resolution} px in {setting.manifest.teacher.precision}:"
        f" views {config.views} of {len(index):,} images, {per_view} shard(s) each, {config.keep}\n"
        f"{left} shard(s){share} to make: {rows:,} rows, {format_bytes(rows * setting.row_bytes)} |"
        f" {world.size} rank(s) on {world.device.type}, {world.threads} decoder thread(s) each"
    )
    if config.views_per_decode > 1 and setting.manifest.pixel_recipe.backend == "dali":
        setting.say("dali decodes a window for each view: for one decode a sample take --backend torchvision or ffcv")


def show_end(totals: Totals, *, views: str, seconds: float) -> None:
    """The table of what this job has done."""
    cells = {
        "views": views,
        "shards": f"{totals.shards:,}",
        "rows": f"{totals.rows:,}",
        "bytes": format_bytes(totals.num_bytes),
        "seconds": f"{seconds:.1f}",
        "images/s": f"{totals.rows / max(seconds, 1e-9):,.0f}",
    }
    print_table(list(cells), [list(cells.values())], left=0)


def format_duration(seconds: float) -> str:
    """42 s, 12 min, 3.4 h, 2.1 days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.1f} days"
