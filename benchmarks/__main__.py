"""Measure what this project claims. Each figure comes from pairs measured in turn; tables for people, JSON for records.

python -m benchmarks loader --data DIR [--json FILE]
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from pipeline.core.command import run_command
from pipeline.core.errors import ConfigError, unknown_name
from stores.atomic import publish_text


def loader(
    data: Path,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    backends: tuple[str, ...] = (),
    resolution: int = 224,
    batch: int = 64,
    threads: int | None = None,
    batches: int = 30,
    repeats: int = 5,
    max_side: int = 500,
    work: Path | None = None,
) -> None:
    """Each backend on replayed views against its library's own random pipeline; and what ImageNet's metadata cost.

    Args:
        data: Folder with a folder of images per class.
        json_file: File for all figures, with machine and versions.
        backends: Of dali, ffcv-raw, ffcv-jpeg, torchvision (default: all that are installed).
        resolution: Output side in pixels.
        batch: Images per batch.
        threads: Decoder threads, or worker processes of the DataLoader (default: all cores).
        batches: Batches in a timed window.
        repeats: Pairs of windows.
        max_side: Longer side of the images in FFCV's copies.
        work: Folder that keeps FFCV's copies for the next time (default: a temporary one).
    """
    from benchmarks.loader import LoaderSettings, installed_loaders, measure_loaders, measure_metadata
    from benchmarks.machine import describe_machine

    if json_file is not None and json_file.exists():
        raise ConfigError(f"--json {json_file} exists; nothing is overwritten: choose another file")
    known = ("dali", "ffcv-raw", "ffcv-jpeg", "torchvision")
    for name in backends:
        if name not in known:
            raise unknown_name("backend to measure", name, known)
    settings = LoaderSettings(data, resolution, batch, threads, batches, repeats, max_side)
    say = Console(highlight=False).print
    with tempfile.TemporaryDirectory() as temporary:
        results = measure_loaders(settings, list(backends) or installed_loaders(), work or Path(temporary), say)
    metadata = measure_metadata()
    table = Table(title="replayed against native, images/s, medians", title_justify="left")
    for column in ("backend", "replayed", "native", "ratio", "ratios of the pairs"):
        table.add_column(column, justify="left" if column == "backend" else "right")
    for pairs in results:
        row = pairs.to_json()
        figures = (f"{row['median_a']:,.0f}", f"{row['median_b']:,.0f}", f"{pairs.ratio:.3f}")
        table.add_row(pairs.name, *figures, " ".join(f"{ratio:.2f}" for ratio in pairs.ratios))
    Console().print(table)
    _show("metadata of 1,281,167 samples", metadata)
    encoded = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(settings).items()}
    encoded["data"] = data.name
    report = {"settings": encoded, "pairs": [pairs.to_json() for pairs in results], "metadata": metadata}
    _save(json_file, report, describe_machine)


def _show(title: str, figures: dict[str, float]) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.3g}" if value < 1000 else f"{value:,.0f}")
    Console().print(table)


def _save(path: Path | None, report: dict[str, Any], describe: Callable[[], dict[str, Any]]) -> None:
    if path is None:
        return
    publish_text(path, json.dumps({"machine": describe(), **report}, indent=1))
    Console().print(f"written: {path}")


def main() -> None:
    """One subcommand per benchmark."""
    tyro.extras.subcommand_cli_from_dict({"loader": loader}, prog="python -m benchmarks", description=__doc__)


if __name__ == "__main__":
    run_command(main)
