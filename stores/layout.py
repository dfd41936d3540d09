"""Where things lie in a store: one folder a view, one immutable file a shard.

STORE/store.h5                                   manifest, and virtual datasets over all shards; can be made again
STORE/head.h5                                    the teacher's classifier, where embeddings are kept
STORE/views/0007/rows-0000000-0065536.h5         a shard: rows [0, 65536) of view 7
STORE/jobs/                                      one folder a precompute job: its state.json
"""

import re
from dataclasses import dataclass
from pathlib import Path

STORE_FILE = "store.h5"
HEAD_FILE = "head.h5"
VIEWS_FOLDER = "views"
JOBS_FOLDER = "jobs"
_VIEW_NAME = re.compile(r"(\d{4,})")
_SHARD_NAME = re.compile(r"rows-(\d{7,})-(\d{7,})\.h5")


@dataclass(frozen=True, order=True)
class ShardKey:
    """Rows [start, stop) of a view. Rows are sample ids."""

    view: int
    start: int
    stop: int

    def __str__(self) -> str:
        return f"view {self.view}, rows {self.start} to {self.stop - 1}"

    def path(self, store: Path) -> Path:
        """The shard's file."""
        return view_folder(store, self.view) / f"rows-{self.start:07d}-{self.stop:07d}.h5"


def view_folder(store: Path, view: int) -> Path:
    """The folder of a view's shards."""
    return store / VIEWS_FOLDER / f"{view:04d}"


def shard_keys(view: int, num_rows: int, shard_rows: int) -> list[ShardKey]:
    """All shards of a complete view: `shard_rows` rows each, the last one what is left. Never depends on world size."""
    return [ShardKey(view, start, min(start + shard_rows, num_rows)) for start in range(0, num_rows, shard_rows)]


def parse_view(name: str) -> int | None:
    """The view that a folder name stands for, or None."""
    match = _VIEW_NAME.fullmatch(name)
    view = int(match[1]) if match else -1
    return view if match and f"{view:04d}" == name else None


def parse_shard(path: Path) -> ShardKey | None:
    """The shard that a path .../<view>/rows-<start>-<stop>.h5 stands for, or None."""
    view, match = parse_view(path.parent.name), _SHARD_NAME.fullmatch(path.name)
    return None if view is None or match is None else ShardKey(view, int(match[1]), int(match[2]))
