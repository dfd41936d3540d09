"""Stored rows against the same rows computed again: how far apart, and which are further apart than they may be."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.teachers.recompute import FLOORS, Recomputed, divergence
from stores.codec import Codec
from stores.index_file import Head
from stores.layout import shard_keys
from stores.outputs import as_logits, decode
from stores.problems import Problem
from stores.reader import StoreReader

_FLOAT32_STEPS = 1e-5  # relative to the row's greatest logit: sums of some thousand products in another order
_AT_DECODED = 1.01  # a codec's bound is taken at the decoded values, a rounding away from the encoded ones


@dataclass(frozen=True)
class CodecFigures:
    """One codec's rows against the teacher's logits now.

    Attributes:
        codec: its id.
        max_abs: the logit that is nearest to or furthest beyond its bound: its difference.
        allowed: its bound.
        kl_mean: mean KL(teacher now || stored row), nats.
        kl_max: greatest.
    """

    codec: str
    max_abs: float
    allowed: float
    kl_mean: float
    kl_max: float


@dataclass(frozen=True)
class Compared:
    """Rows of one codec beside the same rows computed again.

    Attributes:
        figures: of all of them.
        divergences: (B,) KL(teacher now || stored row), nats.
        is_far: (B,) whether a logit is beyond its bound.
    """

    figures: CodecFigures
    divergences: np.ndarray
    is_far: np.ndarray


def read_stored(reader: StoreReader, views: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Label, plan_crc and all fields of rows of several views, in their order."""
    columns: dict[str, np.ndarray] = {}
    for view in np.unique(views):
        at = np.flatnonzero(views == view)
        for name, rows in reader.gather(int(view), ids[at]).items():
            column = columns.setdefault(name, np.empty((len(ids), *rows.shape[1:]), rows.dtype))
            column[at] = rows
    return columns


def compare_keys(reader: StoreReader, stored: dict[str, np.ndarray], now: Recomputed) -> list[Problem]:
    """Rows whose label or plan row is not that of the data set and the policy."""
    labels = bad_rows(reader, now, stored["label"] != now.labels, "the label is not the data set's")
    return labels + bad_rows(reader, now, stored["plan_crc"] != now.plan_crcs, "the view is not the plan's (plan_crc)")


def compare_logits(
    reader: StoreReader, codec: Codec, head: Head | None, stored: dict[str, np.ndarray], now: Recomputed
) -> Compared:
    """Logits from one codec's fields, against the codec's bound and ten times the store's noise floor."""
    rebuilt, bound = _rebuilt(codec, head, stored)
    allowed = bound * _AT_DECODED + _noise(reader, now.logits)
    difference = np.abs(rebuilt - now.logits)
    is_far = ~(difference <= allowed).all(axis=1) | ~(_sums_differ(rebuilt, now.logits) <= _greatest_finite(allowed))
    worst = np.unravel_index(np.argmax(np.where(np.isfinite(allowed), difference / allowed, 0)), allowed.shape)
    apart = divergence(now.logits, rebuilt)
    figures = CodecFigures(
        codec=codec.id,
        max_abs=float(difference[worst]),
        allowed=float(allowed[worst]),
        kl_mean=float(apart.mean()),
        kl_max=float(apart.max()),
    )
    return Compared(figures, apart, is_far)


def beyond_bounds(reader: StoreReader, now: Recomputed, found: Compared) -> list[Problem]:
    """Rows of one codec with a logit beyond its bound."""
    apart = f"by {found.figures.max_abs:.3g} where {found.figures.allowed:.3g} is allowed"
    message = f"{found.figures.codec}: logits are not the teacher's on these pixels, off {apart}"
    return bad_rows(reader, now, found.is_far, message)


def join_figures(parts: Sequence[CodecFigures], sizes: Sequence[int]) -> CodecFigures:
    """The figures of several batches as one."""
    worst = max(parts, key=lambda part: part.max_abs / part.allowed)
    return CodecFigures(
        codec=worst.codec,
        max_abs=worst.max_abs,
        allowed=worst.allowed,
        kl_mean=float(np.average([part.kl_mean for part in parts], weights=sizes)),
        kl_max=max(part.kl_max for part in parts),
    )


def bad_rows(reader: StoreReader, now: Recomputed, is_bad: np.ndarray, message: str) -> list[Problem]:
    """One problem per shard that has bad rows."""
    found = []
    for view in np.unique(now.views[is_bad]).tolist():
        ids = np.sort(now.ids[is_bad & (now.views == view)])
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


def _noise(reader: StoreReader, logits: np.ndarray) -> np.ndarray:
    """(B, 1): what another machine may change."""
    floor = FLOORS * reader.manifest.measured.floor.max_abs_logit
    return floor + _FLOAT32_STEPS * (1 + np.abs(logits).max(axis=1, keepdims=True).astype(np.float64))


def _greatest_finite(allowed: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(allowed), allowed, 0).max(axis=1)


def _sums_differ(rebuilt: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """|log sum exp| apart: never more than the logits are, and all that top-k promises of the classes it left out."""
    return np.abs(np.logaddexp.reduce(rebuilt, axis=1) - np.logaddexp.reduce(logits.astype(np.float64), axis=1))
