"""What `verify` finds."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

OnProgress = Callable[[int, int], None]
_SHOWN = 10


@dataclass(frozen=True)
class Problem:
    """One finding.

    Attributes:
        path: the file or folder.
        message: what is wrong, and the remedy.
        view: the view that it concerns, if it is one.
        ids: sample ids of rows that are not what was written.
        kind: "note" for what is not damage: a killed job's leftovers, views that are not complete yet.
    """

    path: Path
    message: str
    view: int | None = None
    ids: tuple[int, ...] = ()
    kind: Literal["problem", "note"] = "problem"

    def __str__(self) -> str:
        more = f" and {len(self.ids) - _SHOWN:,} more" if len(self.ids) > _SHOWN else ""
        ids = f" (view {self.view}, sample ids {', '.join(map(str, self.ids[:_SHOWN]))}{more})" if self.ids else ""
        return f"{self.path}: {self.message}{ids}"
