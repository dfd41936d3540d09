"""What is found in a store that is looked through, and how that ends."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.core.errors import StoreError

OnProgress = Callable[[int, int], None]
_SHOWN_IDS = 10
_SHOWN = 50


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
        more = f" and {len(self.ids) - _SHOWN_IDS:,} more" if len(self.ids) > _SHOWN_IDS else ""
        ids = f" (view {self.view}, sample ids {', '.join(map(str, self.ids[:_SHOWN_IDS]))}{more})" if self.ids else ""
        return f"{self.path}: {self.message}{ids}"


def end_with(store: Path, found: list[Problem], say: Callable[[str], None], *, whole: str) -> None:
    """Say what was found; where nothing is damaged, that the store is `whole`.

    Raises:
        StoreError: with the problems, where there are any.
    """
    notes, problems = ([one for one in found if one.kind == kind] for kind in ("note", "problem"))
    for note in _first(notes):
        say(f"note: {note}")
    if problems:
        raise StoreError("\n".join([f"{store} has {len(problems):,} problem(s):", *_first(problems)]))
    say(f"{store}: {whole}")


def _first(findings: list[Problem]) -> list[str]:
    more = [f"and {len(findings) - _SHOWN:,} more"] if len(findings) > _SHOWN else []
    return [*map(str, findings[:_SHOWN]), *more]
