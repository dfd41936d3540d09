"""The dataset index: one file that says what every sample is, mapped (not loaded) by every rank.

A sample's id is its row in the index of the whole data set: classes in sorted order, files in sorted order inside them.
A subset holds some of the rows and keeps ids and fingerprint of its parent, so that views and teacher outputs of the
parent serve it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.arrays import map_arrays, write_arrays
from pipeline.core.errors import ArraysError, DataError

INDEX_VERSION = 1
_KIND = "reflux dataset index"


@dataclass(frozen=True)
class Index:
    """Rows of the samples that take part, N of them, sorted by id.

    Attributes:
        root: the folder that relative paths start from ("" where pixels do not come from a folder).
        classes: class names; a label is a position in this list.
        fingerprint: sha256 of the whole data set's rows (path, label, width, height, byte size).
        num_parent: rows of the whole data set; ids lie below it.
        ids: (N,) int64.
        labels: (N,) int32.
        widths: (N,) int32 pixels.
        heights: (N,) int32 pixels.
        sizes: (N,) int64 bytes.
        path_ends: (N + 1,) int64 into `path_bytes`; sample row r has path_bytes[path_ends[r]:path_ends[r + 1]].
        path_bytes: uint8, UTF-8 paths relative to `root`, one after the other.
    """

    root: Path
    classes: tuple[str, ...]
    fingerprint: str
    num_parent: int
    ids: np.ndarray
    labels: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    sizes: np.ndarray
    path_ends: np.ndarray
    path_bytes: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def rows_of(self, ids: np.ndarray) -> np.ndarray:
        """Rows of sample `ids` ((B,) int64); an id that is not here is an error, never a neighbour."""
        if self.num_parent == len(self.ids):
            return ids
        rows = np.searchsorted(self.ids, ids)
        if np.any(self.ids[np.minimum(rows, len(self.ids) - 1)] != ids):
            raise DataError(f"the index holds {len(self)} of {self.num_parent} samples and not all of ids {ids[:8]}...")
        return rows

    def path_of(self, sample_id: int) -> str:
        """Absolute path of one sample."""
        row = int(self.rows_of(np.array([sample_id]))[0])
        name = (
            self.path_bytes[self.path_ends[row] : self.path_ends[row + 1]].tobytes().decode("utf-8", "surrogateescape")
        )
        return str(self.root / name)

    def subset(self, rows: np.ndarray) -> "Index":
        """The index of `rows` (sorted positions): same ids, classes, fingerprint."""
        lengths = np.diff(self.path_ends)[rows]
        ends = np.concatenate(([0], np.cumsum(lengths)))
        pieces = [self.path_bytes[self.path_ends[row] : self.path_ends[row + 1]] for row in rows]
        return Index(
            root=self.root,
            classes=self.classes,
            fingerprint=self.fingerprint,
            num_parent=self.num_parent,
            ids=self.ids[rows],
            labels=self.labels[rows],
            widths=self.widths[rows],
            heights=self.heights[rows],
            sizes=self.sizes[rows],
            path_ends=ends,
            path_bytes=np.concatenate(pieces) if pieces else np.zeros(0, np.uint8),
        )

    def save(self, path: Path) -> None:
        """Write the index to one file, atomically."""
        header = {
            "kind": _KIND,
            "version": INDEX_VERSION,
            "root": str(self.root),
            "classes": list(self.classes),
            "fingerprint": self.fingerprint,
            "num_parent": self.num_parent,
        }
        write_arrays(path, {name: getattr(self, name) for name in _ARRAYS}, header)


_ARRAYS = ("ids", "labels", "widths", "heights", "sizes", "path_ends", "path_bytes")


def load_index(path: Path, *, root: Path | None = None, verify: bool = True) -> Index:
    """Map an index file. `root` replaces the recorded folder (the data set was moved or is mounted elsewhere).

    Raises:
        DataError: not an index, damaged, or written by a newer version.
    """
    try:
        mapped = map_arrays(path, verify=verify)
    except (ArraysError, FileNotFoundError) as error:
        raise DataError(f"{error}\nMake the index with: python launch/prepare.py index --data DIR") from error
    header: dict[str, Any] = mapped.header
    if header.get("kind") != _KIND:
        raise DataError(f"{path} is an HDF5 file but not a dataset index (kind: {header.get('kind')!r})")
    if header["version"] != INDEX_VERSION:
        raise DataError(
            f"{path} has index version {header['version']}, this program reads {INDEX_VERSION}: make the index again"
        )
    return Index(
        root=root if root is not None else Path(header["root"]),
        classes=tuple(header["classes"]),
        fingerprint=header["fingerprint"],
        num_parent=header["num_parent"],
        **mapped.arrays,
    )


@dataclass(frozen=True)
class SampleRecord:
    """One row before it is packed; `path` is relative to the root."""

    path: str
    label: int
    width: int
    height: int
    size_bytes: int


def pack_index(root: Path, classes: tuple[str, ...], records: list[SampleRecord]) -> Index:
    """The index of a whole data set, from records in id order."""
    encoded = [record.path.encode("utf-8", "surrogateescape") for record in records]
    ends = np.concatenate(([0], np.cumsum([len(name) for name in encoded]))).astype(np.int64)
    columns: dict[str, np.ndarray] = {
        "labels": np.array([record.label for record in records], np.int32),
        "widths": np.array([record.width for record in records], np.int32),
        "heights": np.array([record.height for record in records], np.int32),
        "sizes": np.array([record.size_bytes for record in records], np.int64),
        "path_ends": ends,
        "path_bytes": np.frombuffer(b"".join(encoded), np.uint8),
    }
    return Index(
        root=root,
        classes=classes,
        fingerprint=fingerprint_of(classes, columns),
        num_parent=len(records),
        ids=np.arange(len(records), dtype=np.int64),
        **columns,
    )


def fingerprint_of(classes: tuple[str, ...], columns: dict[str, np.ndarray]) -> str:
    """sha256, 64 hex digits, of the class list and of every column (little-endian), whatever the folder's place."""
    digest = hashlib.sha256(json.dumps([INDEX_VERSION, list(classes)]).encode())
    for name in sorted(columns):
        array = columns[name]
        digest.update(name.encode() + np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).tobytes())
    return digest.hexdigest()


def select_subset(index: Index, spec: str) -> Index:
    """The part of `index` that `--subset` names: class names joined by commas, or a share such as `10%`.

    A share takes every k-th sample of each class (no randomness), at least one a class.
    """
    if spec.endswith("%"):
        return index.subset(_share_rows(index, spec))
    wanted = [name.strip() for name in spec.split(",") if name.strip()]
    unknown = sorted(set(wanted) - set(index.classes))
    if unknown or not wanted:
        raise DataError(
            f"--subset takes a share such as 10% or class names; not classes of this data set: {unknown or [spec]}"
        )
    labels = [index.classes.index(name) for name in wanted]
    return index.subset(np.flatnonzero(np.isin(index.labels, labels)))


def _share_rows(index: Index, spec: str) -> np.ndarray:
    try:
        share = float(spec[:-1]) / 100
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise DataError(f"--subset as a share must lie above 0% and up to 100%, got {spec!r}")
    chosen = []
    for label in np.unique(index.labels):
        rows = np.flatnonzero(index.labels == label)
        count = max(1, int(np.rint(len(rows) * share)))
        chosen.append(rows[np.arange(count) * len(rows) // count])
    return np.sort(np.concatenate(chosen))


def check_same_classes(train: Index, val: Index) -> None:
    """Refuse two indexes whose class lists differ: their labels would mean different things."""
    if train.classes == val.classes:
        return
    only_train = sorted(set(train.classes) - set(val.classes))[:5]
    only_val = sorted(set(val.classes) - set(train.classes))[:5]
    raise DataError(
        "training and validation data must have the same classes, in the same order.\n"
        f"  train: {len(train.classes)} classes, only there: {only_train}\n"
        f"  val:   {len(val.classes)} classes, only there: {only_val}"
    )
