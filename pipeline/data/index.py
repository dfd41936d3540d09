"""The dataset index: one file that says what every sample is, mapped (not loaded) by every rank.

A sample's id is its row in the index of the whole data set: classes in sorted order, files in sorted order inside them.
A subset holds some of the rows and keeps ids and fingerprint of its parent, so that views and teacher outputs of the
parent serve it.
"""

import hashlib
import json
from dataclasses import dataclass, replace
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
        (name,) = self.names_of(np.array([sample_id]))
        return str(self.root / name.decode("utf-8", "surrogateescape"))

    def names_of(self, ids: np.ndarray) -> list[bytes]:
        """Paths of samples, relative to the root."""
        rows = self.rows_of(ids)
        spans = zip(self.path_ends[rows], self.path_ends[rows + 1], strict=True)
        return [self.path_bytes[start:end].tobytes() for start, end in spans]

    def subset(self, rows: np.ndarray) -> "Index":
        """The index of `rows` (sorted positions): same ids, classes, fingerprint."""
        kept: dict[str, Any] = {name: getattr(self, name)[rows] for name in _COLUMNS}
        return replace(self, **kept, **_packed(self.names_of(kept["ids"])))

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


_COLUMNS = ("ids", "labels", "widths", "heights", "sizes")
_ARRAYS = (*_COLUMNS, "path_ends", "path_bytes")


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
    sides = [(record.label, record.width, record.height) for record in records]
    labels, widths, heights = np.array(sides, np.int32).reshape(-1, 3).T.copy()
    sizes = np.array([record.size_bytes for record in records], np.int64)
    return whole_index(root, classes, labels=labels, widths=widths, heights=heights, sizes=sizes, **_packed(encoded))


def whole_index(root: Path, classes: tuple[str, ...], **columns: np.ndarray) -> Index:
    """The index of a whole data set, from its columns; byte sizes and paths may be left out: there are no files."""
    ids = np.arange(len(columns["labels"]), dtype=np.int64)
    columns = without_files(len(ids)) | columns
    return Index(root, classes, fingerprint_of(classes, columns), len(ids), ids, **columns)


def without_files(num_samples: int) -> dict[str, Any]:
    """The columns that say of files where there are none: no bytes, empty paths."""
    ends = np.zeros(num_samples + 1, np.int64)
    return {"sizes": ends[1:], "path_ends": ends, "path_bytes": np.zeros(0, np.uint8)}


def _packed(names: list[bytes]) -> dict[str, Any]:
    ends = np.cumsum([0, *map(len, names)]).astype(np.int64)
    return {"path_ends": ends, "path_bytes": np.frombuffer(b"".join(names), np.uint8)}


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
