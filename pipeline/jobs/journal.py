"""What a run writes as it goes: lines of JSON, such as metrics.jsonl, and the same for TensorBoard."""

import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Any, Literal

from torch.utils.tensorboard.writer import SummaryWriter

from pipeline.core.atomic import publish


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file; a last line cut off by a kill is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def drop_lines_from(path: Path, step: int) -> None:
    """Remove lines whose "step" is `step` or later: they will be written again."""
    drop_lines(path, lambda line: line["step"] >= step)


def drop_lines(path: Path, is_stale: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrite a JSON-lines file, atomically, without the lines that `is_stale` names."""
    if not path.exists():
        return
    kept = [line for line in read_lines(path) if not is_stale(line)]
    with publish(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


class LineWriter:
    """Appends JSON lines; each is handed to the operating system when it is written."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("a", encoding="utf-8", buffering=1)

    def write(self, line: dict[str, Any]) -> None:
        """Append one object."""
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Journal:
    """metrics.jsonl and TensorBoard of one run, written by rank 0, continued after `start_step` steps.

    Args:
        run: the run directory.
        start_step: steps that are done; lines of later ones are dropped, and so are evaluations not in `evaluated`.
        evaluated: steps after which the checkpoint knows of an evaluation.

    Lines are {"kind": "train" | "eval", "step", "epoch", ...}; a line's step is the number of steps done.
    """

    def __init__(self, run: Path, start_step: int, *, evaluated: Collection[int] = ()) -> None:
        def comes_again(line: dict[str, Any]) -> bool:
            return line["step"] > start_step or (line["kind"] == "eval" and line["step"] not in evaluated)

        drop_lines(run / "metrics.jsonl", comes_again)
        self._lines = LineWriter(run / "metrics.jsonl")
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=start_step + 1)

    def write(self, kind: Literal["train", "eval"], step: int, epoch: float, values: dict[str, Any]) -> None:
        """Record values after `step` steps."""
        self._lines.write({"kind": kind, "step": step, "epoch": epoch, **values})
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush and close."""
        self._lines.close()
        self._board.close()
