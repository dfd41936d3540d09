"""The demo: draw images, train a teacher, store its outputs for four views, train a student from labels and distilled.

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

from pipeline.core.command import progress, run_command
from pipeline.core.errors import RefluxError
from pipeline.data.demo_images import DemoSpec, write_demo

_PROGRAM = Path(__file__).with_name("imagenet.py")
_NUM_VIEWS = 4
_ONLINE_EPOCHS = 2


def demo(out: Path, epochs: int = 14, train_per_class: int = 300, val_per_class: int = 50) -> None:
    """Draw images, train teacher, fill a store, train students, print accuracies and times as they come out.

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
    teaching = [*common, "--teacher", f"demo_teacher@{weights}"]
    _precompute(out / "data", weights, out / "store")
    stored = ["--store", str(out / "store"), "--teacher-source", "stored"]
    distilled = _train("demo", out / "distilled", [*teaching, *stored])
    some_steps = round(_ONLINE_EPOCHS * distilled["steps"] / distilled["epochs"])
    online = _train("demo", out / "online", [*teaching, "--max-steps", str(some_steps)])
    runs = {
        "teacher, from labels": teacher,
        "student, from labels": labels,
        "student, teacher from the store": distilled,
        f"student, teacher online ({_ONLINE_EPOCHS} epochs, for its speed)": online,
    }
    _show(runs, time.monotonic() - started)
    gain = distilled["last"]["top1"] - labels["last"]["top1"]
    Console().print(f"The teacher's outputs changed the student's last top-1 by {gain:+.1f} points.")
    from launch.demo_picture import draw_picture  # torch and matplotlib: after --help

    draw_picture(out)
    Console().print(f"picture: {out / 'demo.png'}   curves: {out}/*/curves.png   TensorBoard: --logdir {out}")


def _train(recipe: str, run: Path, flags: list[str]) -> dict[str, Any]:
    arguments = [recipe, "--out", str(run), *flags]
    _run([str(_PROGRAM)], arguments, shown=f"launch/{_PROGRAM.name}")
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return summary


def _precompute(data: Path, weights: Path, store: Path) -> None:
    views = ["--views", f"0:{_NUM_VIEWS}", "--policy", "demo_train", "--resolution", "64"]
    arguments = ["--data", str(data), "--teacher", f"demo_teacher@{weights}", "--store", str(store), *views]
    _run(["-m", "precompute"], arguments, shown="-m precompute")


def _run(program: list[str], arguments: list[str], *, shown: str) -> None:
    line = shlex.join(["python", *shown.split(), *arguments])
    Console(soft_wrap=True, highlight=False).print(f"\n[bold]$ {line}[/]")
    code = subprocess.run([sys.executable, *program, *arguments], check=False).returncode
    if code:
        raise RefluxError(f"`{line}` ended with exit code {code}; its message stands above.")


def _show(runs: dict[str, dict[str, Any]], seconds: float) -> None:
    table = Table(title=f"\n{len(runs)} runs, {seconds:.0f} s in all", title_justify="left")
    table.add_column()
    for column in ("top-1, last", "top-1, best", "images/s", "s an epoch"):
        table.add_column(column, justify="right")
    for name, run in runs.items():
        accuracies = (f"{run['last']['top1']:.1f} %", f"{run['best']['top1']:.1f} %")
        table.add_row(name, *accuracies, f"{run['images_per_s']:,.0f}", f"{run['seconds'] / run['epochs']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    run_command(lambda: tyro.cli(demo, prog="launch/demo.py", description=__doc__))
