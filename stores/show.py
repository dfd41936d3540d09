"""What a store holds, in words: the lines of `python -m stores show`."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline.core.errors import StoreError
from stores.codec_registry import codec_from_json
from stores.index_file import list_shards, read_manifest
from stores.layout import ShardKey, shard_keys
from stores.manifest import Manifest
from stores.records import Record

_SHORT = 12


@dataclass(frozen=True)
class ViewsState:
    """Views that are filled alike.

    Attributes:
        views: their numbers, such as "0-3, 7".
        num_views: how many.
        complete: whether every row of each is there.
        num_shards: shards that are there, per view.
        num_shards_wanted: shards of a complete view.
        num_rows: rows that are there, per view.
        num_bytes: of all these views' files.
    """

    views: str
    num_views: int
    complete: bool
    num_shards: int
    num_shards_wanted: int
    num_rows: int
    num_bytes: int


def describe_store(store: Path) -> list[tuple[str, str]]:
    """What the manifest says, one (name, value) pair a line.

    Raises:
        StoreError: no store, or one that this program cannot read.
    """
    manifest = read_manifest(store)
    teacher, measured = manifest.teacher, manifest.measured
    return [
        ("format version", str(manifest.version)),
        ("fingerprint", manifest.fingerprint()[:_SHORT]),
        ("data set", f"{manifest.num_rows:,} samples, index {manifest.index_fingerprint[:_SHORT]}"),
        ("classes", f"{len(manifest.classes):,}"),
        ("teacher", teacher.name or "unknown"),
        ("weights sha256", (teacher.weights_sha256 or "unknown")[:_SHORT]),
        ("measured top-1", _measured(measured.top1)),
        ("teacher's input", _values(teacher, ("resolution", "mean", "std"))),
        ("teacher's numerics", _values(teacher, ("precision", "batch", "channels_last", "compile"))),
        ("policy", _text(manifest.policy)),
        ("plan", f"seed {manifest.plan_seed}, version {manifest.plan_version}"),
        ("pixel recipe", _text(manifest.pixel_recipe.to_json())),
        *(("codec", line) for line in _codecs(manifest)),
        ("shards", f"{manifest.shard_rows:,} rows each"),
        ("noise floor", _measured(measured.noise_floor)),
        ("made with", _text(manifest.made_with) or "unknown"),
    ]


def view_states(store: Path) -> list[ViewsState]:
    """What is there of each view, views of one state joined; from names and sizes of files alone."""
    manifest, found = read_manifest(store), list_shards(store)
    wanted = shard_keys(0, manifest.num_rows, manifest.shard_rows)
    ranges = {(key.start, key.stop) for key in wanted}
    by_view = {view: list(keys) for view, keys in groupby(found, key=lambda key: key.view)}
    own = {view: [key for key in keys if (key.start, key.stop) in ranges] for view, keys in by_view.items()}
    states: dict[tuple[int, int], list[int]] = {}
    for view, keys in own.items():
        states.setdefault((len(keys), _rows(keys)), []).append(view)
    return [
        ViewsState(
            views=as_ranges(views),
            num_views=len(views),
            complete=num_rows == manifest.num_rows,
            num_shards=num_shards,
            num_shards_wanted=len(wanted),
            num_rows=num_rows,
            num_bytes=sum(_size(key.path(store)) for view in views for key in own[view]),
        )
        for (num_shards, num_rows), views in states.items()
    ]


def as_ranges(views: list[int]) -> str:
    """[0, 1, 2, 7] as "0-2, 7"; nothing as "none"."""
    runs = [[view for _, view in run] for _, run in groupby(enumerate(views), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs) or "none"


def _rows(keys: list[ShardKey]) -> int:
    return sum(key.stop - key.start for key in keys)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def _codecs(manifest: Manifest) -> list[str]:
    codecs = [(codec_from_json(fields), dict(fields)) for fields in manifest.codecs]
    return [f"{fields.pop('id')}: {codec.row_bytes:,} bytes a row, {_text(fields)}" for codec, fields in codecs]


def _measured(found: Record | None) -> str:
    return "not measured" if found is None else _text(found.to_json())


def _values(record: Record, names: tuple[str, ...]) -> str:
    entries = record.to_json()
    return _text({name: entries[name] for name in names if name in entries})


def _text(value: Any) -> str:
    """A JSON value for people: "name value, name value" without brackets and quotes, numbers short."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_text(part) for part in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)
