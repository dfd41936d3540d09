"""The demo: draw a small data set, train a teacher, then a small student from labels alone and the same one distilled.

python launch/demo.py --out runs/demo

Every part runs the real program, as the printed command lines say. Started again, it goes on where it was.
"""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from launch.demo_images import DemoSpec, write_demo
from pipeline.core.command import progress, run_command
from pipeline.core.errors import RefluxError

_PROGRAM = Path(__file__).with_name("imagenet.py")


def demo(out: Path, epochs: int = 14, train_per_class: int = 300, val_per_class: int = 50) -> None:
    """Draw images, train teacher and students, print the three accuracies as they come out.

    Args:
        out: Folder for data and runs.
        epochs: Passes over the images, for each of the three networks.
        train_per_class: Training images drawn for each of the ten classes.
        val_per_class: Validation images drawn for each class.
    """
    started = time.monotonic()
    with progress("drawing", "images") as on_progress:
        write_demo(out / "data", DemoSpec(train_per_class, val_per_class), on_progress)
    common = ["--data", str(out / "data"), "--epochs", str(epochs)]
    teacher = _train("demo_vanilla", out / "teacher", [*common, "--student", "demo_teacher"])
    labels = _train("demo_vanilla", out / "labels", [*common, "--student", "demo_student"])
    weights = out / "teacher" / "student.pt"
    distilled = _train("demo", out / "distilled", [*common, "--teacher", f"demo_teacher@{weights}"])
    runs = {"teacher, from labels": teacher, "student, from labels": labels, "student, distilled": distilled}
    _show(runs, time.monotonic() - started)
    from launch.demo_picture import draw_picture  # torch and matplotlib: after --help

    draw_picture(out)
    Console().print(f"picture: {out / 'demo.png'}   curves: {out}/*/curves.png   TensorBoard: --logdir {out}")


def _train(recipe: str, run: Path, flags: list[str]) -> dict[str, Any]:
    command = [sys.executable, str(_PROGRAM), recipe, "--out", str(run), *flags]
    shown = shlex.join(["python", f"launch/{_PROGRAM.name}", *command[2:]])
    Console(soft_wrap=True, highlight=False).print(f"\n[bold]$ {shown}[/]")
    code = subprocess.run(command, check=False).returncode
    if code:
        raise RefluxError(f"the run in {run} ended with exit code {code}; its message stands above.")
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return summary


def _show(runs: dict[str, dict[str, Any]], seconds: float) -> None:
    table = Table(title=f"\nThree runs, {seconds:.0f} s in all", title_justify="left")
    table.add_column()
    for column in ("top-1, last", "top-1, best", "images/s", "seconds"):
        table.add_column(column, justify="right")
    for name, run in runs.items():
        accuracies = (f"{run['last']['top1']:.1f} %", f"{run['best']['top1']:.1f} %")
        table.add_row(name, *accuracies, f"{run['images_per_s']:,.0f}", f"{run['seconds']:.0f}")
    Console().print(table)
    gain = runs["student, distilled"]["last"]["top1"] - runs["student, from labels"]["last"]["top1"]
    Console().print(f"The teacher's outputs changed the student's last top-1 by {gain:+.1f} points.")


if __name__ == "__main__":
    run_command(lambda: tyro.cli(demo, prog="launch/demo.py", description=__doc__))
