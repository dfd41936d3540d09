"""Rows of a store computed again, as they were made, and how far apart they are from what is stored.

A row's bits depend on the batch size, not on what else is in the batch, so rows go through the teacher in batches of
the store's size and in the store's numerics: on the software and hardware that made the store, and on its pixels,
nothing but the codec's rounding is left. Training, audits and jobs that go on with a store get one answer here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.data.backend import Backend
from pipeline.data.index import Index
from pipeline.data.plan import Plan
from pipeline.data.policy import from_json
from pipeline.devices.streams import to_device
from pipeline.teachers.runner import TeacherRunner
from stores.manifest import Manifest
from stores.records import PixelRecipe

# Nats of mean KL that no student can tell from nothing: a trained one is 1e-2 and more away from its teacher, a
# thousand times as much. Measured figures alone would not do: in float32 on a CPU the noise floor is 0, and the better
# a codec, the less another backend could differ.
NEGLIGIBLE = 1e-5
FLOORS = 10.0  # times what precompute measured between two batch sizes


@dataclass(frozen=True)
class Recomputed:
    """Rows as they come out now.

    Attributes:
        views: (B,) int64.
        ids: (B,) int64.
        labels: (B,) of the data set.
        plan_crcs: (B,) uint32.
        logits: (B, C) float32.
    """

    views: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    plan_crcs: np.ndarray
    logits: np.ndarray


def recipe_of(backend: Backend) -> PixelRecipe:
    """How a backend makes pixels, to compare with a store's."""
    return PixelRecipe.from_json(backend.pixel_recipe())


def recompute(
    manifest: Manifest, rows: tuple[np.ndarray, np.ndarray], index: Index, backend: Backend, teacher: TeacherRunner
) -> Iterator[Recomputed]:
    """The rows in their order, a batch of the teacher at a time; to be called in `fixed_numerics`.

    Args:
        manifest: the store's, whose plan cuts the pixels.
        rows: views and sample ids, (B,) int64 each.
        index: the data set.
        backend: what makes pixels here, of the store's resolution.
        teacher: the store's.
    """
    plan, (views, ids) = Plan(from_json(manifest.policy), manifest.plan_seed), rows
    size = teacher.batch or len(ids)
    at = index.rows_of(ids)
    planned = plan.rows(ids, views, index.widths[at], index.heights[at])
    parts = [slice(start, start + size) for start in range(0, len(ids), size)]
    requests = [planned.part(part) for part in parts]
    for part, request, pixels in zip(parts, requests, backend.stream(iter(requests)), strict=True):
        logits = teacher.of_pixels(to_device(pixels.images, teacher.device)).logits.cpu().numpy()
        yield Recomputed(request.views, request.ids, index.labels[at[part]], request.crc(), logits)


def divergence(logits: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """(B,) float64 nats: KL(teacher now || stored row) of (B, C) logits each."""
    p, q = (
        rows - np.logaddexp.reduce(rows, axis=1, keepdims=True)
        for rows in (logits.astype(np.float64), stored.astype(np.float64))
    )
    return np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0)


def allowed_divergence(manifest: Manifest, codecs: Iterable[str]) -> float:
    """Mean KL, in nats, up to which pixels made in another way count as the store's own.

    Ten times what precompute measured of another batch size and of the worst of the `codecs`, and never less than
    NEGLIGIBLE.
    """
    measured = manifest.measured
    return max(NEGLIGIBLE, FLOORS * (measured.floor.kl + max(measured.cost(name).kl for name in codecs)))
