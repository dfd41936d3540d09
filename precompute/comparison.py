"""Stored rows against the same rows computed again: how far apart, and which are further apart than they may be.

On the store's own pixels each logit has its bound. Foreign pixels move every logit, those of unlikely classes most, so
that no bound would tell a row that is wrong from one that is not: there the divergence does, within what training
allows such pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.teachers.recompute import FLOORS, divergence
from stores.codec import Codec
from stores.index_file import Head
from stores.layout import shard_keys
from stores.manifest import Manifest
from stores.outputs import as_logits, decode
from stores.problems import Problem
from stores.reader import StoreReader
from stores.records import PixelRecipe

Rows = tuple[np.ndarray, np.ndarray]  # views and sample ids, (B,) int64 each

ONE_OF_MANY = 100.0  # one row's divergence over the mean of many: few images change much where most hardly do
_FLOAT32_STEPS = 1e-5  # relative to the row's greatest logit: sums of some thousand products in another order
_AT_DECODED = 1.01  # a codec's bound is taken at the decoded values, a rounding away from the encoded ones


@dataclass(frozen=True)
class CodecFigures:
    """One codec's rows against the teacher's logits now.

    Attributes:
        codec: its id.
        off: (B,) the logit of each row that is nearest to or furthest beyond its bound: its difference.
        bounds: (B,) its bound.
        divergences: (B,) KL(teacher now || stored row), nats.
        is_far: (B,) whether a logit, or the sum over all of them, is beyond its bound.
    """

    codec: str
    off: np.ndarray
    bounds: np.ndarray
    divergences: np.ndarray
    is_far: np.ndarray

    @property
    def max_abs(self) -> float:
        """Difference of the logit that is nearest to or furthest beyond its bound, of all rows."""
        return float(self.off[self._worst])

    @property
    def allowed(self) -> float:
        """Its bound."""
        return float(self.bounds[self._worst])

    @property
    def kl_mean(self) -> float:
        """Mean divergence, nats."""
        return float(self.divergences.mean())

    @property
    def kl_max(self) -> float:
        """Greatest."""
        return float(self.divergences.max())

    @property
    def _worst(self) -> np.intp:
        return np.argmax(self.off / self.bounds)


def read_stored(reader: StoreReader, rows: Rows) -> dict[str, np.ndarray]:
    """Label, plan_crc and all fields of rows of several views, in their order."""
    views, ids = rows
    columns: dict[str, np.ndarray] = {}
    for view in np.unique(views):
        at = np.flatnonzero(views == view)
        for name, found in reader.gather(int(view), ids[at]).items():
            column = columns.setdefault(name, np.empty((len(ids), *found.shape[1:]), found.dtype))
            column[at] = found
    return columns


def compare_logits(
    manifest: Manifest, codec: Codec, head: Head | None, stored: dict[str, np.ndarray], now: np.ndarray
) -> CodecFigures:
    """Logits from one codec's fields against those of `now`, (B, C): the codec's bound, ten times the noise floor."""
    rebuilt, bound = _rebuilt(codec, head, stored)
    allowed = bound * _AT_DECODED + _noise(manifest, now)
    difference, is_finite = np.abs(rebuilt - now), np.isfinite(allowed)
    greatest = np.where(is_finite, allowed, 0).max(axis=1)
    is_far = ~(difference <= allowed).all(axis=1) | ~(_sums_differ(rebuilt, now) <= greatest)
    worst = np.argmax(np.where(is_finite, difference / allowed, 0), axis=1)[:, None]
    off, bounds = (np.take_along_axis(values, worst, axis=1)[:, 0] for values in (difference, allowed))
    return CodecFigures(codec.id, off, bounds, divergence(now, rebuilt), is_far)


def join_figures(parts: Sequence[CodecFigures]) -> CodecFigures:
    """The figures of several batches as one."""
    names = ("off", "bounds", "divergences", "is_far")
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
    return CodecFigures(parts[0].codec, *columns)


def beyond_bounds(reader: StoreReader, rows: Rows, one: CodecFigures) -> list[Problem]:
    """Rows of one codec with a logit beyond its bound."""
    apart = f"by {one.max_abs:.3g} where {one.allowed:.3g} is allowed"
    return bad_rows(reader, rows, one.is_far, f"{one.codec}: logits are not the teacher's on these pixels, off {apart}")


def too_divergent(reader: StoreReader, rows: Rows, one: CodecFigures, limit: float) -> list[Problem]:
    """Rows of one codec that diverge more than a hundred times as far as the mean of all rows may, `limit`."""
    most = ONE_OF_MANY * limit
    message = f"{one.codec}: logits are not the teacher's, KL up to {one.kl_max:.3g} where {most:.3g} is allowed"
    return bad_rows(reader, rows, ~(one.divergences <= most), message)  # NaN is far


def on_foreign_pixels(
    reader: StoreReader, here: PixelRecipe, rows: Rows, figures: Sequence[CodecFigures], limits: Sequence[float]
) -> list[Problem]:
    """A note of both ways of making pixels; then means that are too great and rows, the first with a doubt.

    Args:
        reader: the store.
        here: how pixels are made here.
        rows: that were compared.
        figures: of these rows, by codec.
        limits: mean divergences that are allowed, by codec.
    """
    there = reader.manifest.pixel_recipe
    sides = f"  store: {there}\n  here:  {here}"
    note = Problem(reader.path, f"pixels are made here in another way than the store's\n{sides}", kind="note")
    pairs = list(zip(figures, limits, strict=True))
    found = [
        Problem(reader.path, f"{one.codec}: the teacher's outputs diverge by {one.kl_mean:.3g}, {limit:.3g} is allowed")
        for one, limit in pairs
        if not one.kl_mean <= limit
    ]
    found += [problem for one, limit in pairs for problem in too_divergent(reader, rows, one, limit)]
    doubt = (
        f". The store may be intact: its pixels were made by {there.backend}, those here by {here.backend}"
        " in another way. Compare with its own backend and images"
    )
    return [note, *(replace(one, message=one.message + doubt) for one in found[:1]), *found[1:]]


def bad_rows(reader: StoreReader, rows: Rows, is_bad: np.ndarray, message: str) -> list[Problem]:
    """One problem per shard that has bad rows, (B,) bool."""
    found = []
    views, all_ids = (part[is_bad] for part in rows)
    for view in np.unique(views).tolist():
        ids = np.sort(all_ids[views == view])
        for key in shard_keys(view, reader.manifest.num_rows, reader.manifest.shard_rows):
            inside = ids[(ids >= key.start) & (ids < key.stop)]
            if len(inside):
                found.append(Problem(key.path(reader.path), message, view=view, ids=tuple(inside.tolist())))
    return found


def _rebuilt(codec: Codec, head: Head | None, stored: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(B, C) float64 logits, and how far each may be from the one that was encoded."""
    rows = decode(codec, stored)
    logits, bound = as_logits(codec, rows, head).astype(np.float64), codec.bound(rows)
    return logits, bound if codec.source == "logits" or head is None else bound @ np.abs(head[0]).astype(np.float64).T


def _noise(manifest: Manifest, logits: np.ndarray) -> np.ndarray:
    """(B, 1): what another machine may change."""
    floor = FLOORS * manifest.measured.floor.max_abs_logit
    return floor + _FLOAT32_STEPS * (1 + np.abs(logits).max(axis=1, keepdims=True).astype(np.float64))


def _sums_differ(rebuilt: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """|log sum exp| apart: never more than the logits are, and all that top-k promises of the classes it left out."""
    return np.abs(np.logaddexp.reduce(rebuilt, axis=1) - np.logaddexp.reduce(logits.astype(np.float64), axis=1))
