"""A run's curves as a picture: RUN/curves.png."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from pipeline.core.atomic import publish
from pipeline.jobs.journal import read_lines


def draw_curves(run: Path, title: str, weights: dict[str, float]) -> None:
    """Draw loss terms, accuracies, learning rate and a learned temperature against epochs into RUN/curves.png.

    The numbers are those of RUN/metrics.jsonl, whose loss terms are unweighted; drawn are `weights` (of each term's
    name) times the terms, which add up to the loss.
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
    _draw_losses(losses, train, weights)
    _draw_accuracy(accuracy, train, evaluations)
    rate.plot(*_points(train, "lr"), color="tab:gray")
    rate.set(title="learning rate", xlabel="epoch")
    if has_temperature:
        more[0].plot(*_points(train, "temperature"), color="tab:red")
        more[0].set(title="temperature", xlabel="epoch")
    with publish(run / "curves.png") as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _draw_losses(axes: Any, train: list[dict[str, Any]], weights: dict[str, float]) -> None:
    axes.plot(*_points(train, "loss"), label="loss", linewidth=1)
    for name, weight in weights.items():
        if name in train[0]:
            epochs, values = _points(train, name)
            label = name if weight == 1 else f"{weight:g} * {name}"
            axes.plot(epochs, [weight * value for value in values], label=label, linewidth=1)
    axes.set(title="training loss and its weighted terms", xlabel="epoch")
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
