"""One picture of the demo: what the networks saw, and how the three runs went."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pipeline.core.atomic import publish
from pipeline.data.backend import BackendOptions, Source, open_backend
from pipeline.data.index import Index, load_index
from pipeline.data.plan import Plan, PlanRows
from pipeline.data.policy import get_policy
from pipeline.jobs.journal import read_lines

_VIEWS = 7
_RUNS = {
    "teacher": "teacher, from labels",
    "labels": "student, from labels",
    "distilled": "student, distilled from the store",
}


def draw_picture(out: Path) -> None:
    """Write OUT/demo.png: one image of each class in its first views, and validation accuracy against epochs."""
    index = load_index(out / "teacher" / "index" / "train.index.h5")
    figure = Figure(figsize=(13, 6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    left.imshow(_contact_sheet(index))
    left.set(title=f"one image a class, views 0 to {_VIEWS - 1} of plan seed 0", xticks=[])
    left.set_yticks([(row + 0.5) * 66 for row in range(len(index.classes))], index.classes)
    for run, label in _RUNS.items():
        lines = [line for line in read_lines(out / run / "metrics.jsonl") if line["kind"] == "eval"]
        epochs, top1 = [line["epoch"] for line in lines], [line["top1"] for line in lines]
        right.plot(epochs, top1, marker="o", markersize=4, label=f"{label}: {top1[-1]:.1f} %")
    right.set(title="validation top-1, %", xlabel="epoch")
    right.grid(alpha=0.3)
    right.legend(loc="lower right")
    with publish(out / "demo.png") as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _contact_sheet(index: Index) -> np.ndarray:
    rows = _plan(index)
    options = BackendOptions(resolution=64, num_threads=1, max_batch=len(rows))
    backend = open_backend("torchvision", Source(index), options)
    images = next(iter(backend.stream([rows]))).images.numpy()
    backend.close()
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    grid = framed.reshape(len(index.classes), _VIEWS, 66, 66, 3)
    sheet: np.ndarray = grid.transpose(0, 2, 1, 3, 4).reshape(len(index.classes) * 66, _VIEWS * 66, 3)
    return sheet


def _plan(index: Index) -> PlanRows:
    first = [int(np.flatnonzero(index.labels == label)[0]) for label in range(len(index.classes))]
    ids = np.repeat(index.ids[first], _VIEWS)
    views = np.tile(np.arange(_VIEWS), len(first))
    at = index.rows_of(ids)
    return Plan(get_policy("imagenet_train"), plan_seed=0).rows(ids, views, index.widths[at], index.heights[at])
