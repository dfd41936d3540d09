"""A run's curves as a picture: RUN/curves.png."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from pipeline.engine.journal import read_lines
from stores.atomic import publish


def draw_curves(run: Path, title: str) -> None:
    """Draw loss terms, accuracies, learning rate and a learned temperature against epochs into RUN/curves.png.

    The numbers are those of RUN/metrics.jsonl.
    """
    lines = list(read_lines(run / "metrics.jsonl"))
    train = [line for line in lines if line["kind"] == "train"]
    evaluations = [line for line in lines if line["kind"] == "eval"]
    if not train:
        return
    with mpl.rc_context({"axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False}):
        has_temperature = "temperature" in train[0]
        num_panels = 3 + has_temperature
        figure = Figure(figsize=(4 * num_panels, 4), layout="constrained")
        figure.suptitle(title)
        losses, accuracy, rate, *more = figure.subplots(1, num_panels)
    _draw_losses(losses, train)
    _draw_accuracy(accuracy, train, evaluations)
    rate.plot(*_points(train, "lr"), color="tab:gray")
    rate.set(title="learning rate", xlabel="epoch")
    if has_temperature:
        more[0].plot(*_points(train, "temperature"), color="tab:red")
        more[0].set(title="temperature", xlabel="epoch")
    with publish(run / "curves.png") as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _draw_losses(axes: Any, train: list[dict[str, Any]]) -> None:
    for name in ("loss", "ce", "kd", "method"):
        if name in train[0]:
            axes.plot(*_points(train, name), label=name, linewidth=1)
    axes.set(title="training loss and its terms", xlabel="epoch")
    axes.legend()


def _draw_accuracy(axes: Any, train: list[dict[str, Any]], evaluations: list[dict[str, Any]]) -> None:
    epochs, shares = _points(train, "top1")
    axes.plot(epochs, [100 * share for share in shares], color="tab:blue", alpha=0.35, label="train top-1")
    for name, label in (("top1", "val top-1"), ("top5", "val top-5"), ("ema_top1", "val top-1, average")):
        if evaluations and name in evaluations[0]:
            axes.plot(*_points(evaluations, name), marker="o", markersize=3, label=label)
    axes.set(title="accuracy, %", xlabel="epoch")
    axes.legend()


def _points(lines: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    return [line["epoch"] for line in lines], [line[name] for line in lines]
