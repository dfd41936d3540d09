"""What a section is made of, and what comes out of each of its parts."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from pipeline.core.cpu import decoder_threads

Verdict = Literal["passed", "failed", "measured", "unproven"]
Size = Literal["full", "quick", "toy"]
_MODELS = ("resnet18", "resnet34@random")
NO_TIME = "no time left"
_T = TypeVar("_T")
_TRACEBACK_CHARS = 4000


@dataclass(frozen=True)
class Setting:
    """Where and how large.

    Attributes:
        device: "cuda:0"; or "cpu", where tests run what needs no GPU.
        work: a folder for data, stores and runs, which all sections share.
        data: a folder of class folders; None for generated images.
        size: "full", "quick", or "toy" for tests and for the sanitizer.
    """

    device: str
    work: Path
    data: Path | None = None
    size: Size = "full"

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return torch.device(self.device).type == "cuda"

    @property
    def threads(self) -> int:
        """Decoder threads, as a run of one rank has them."""
        return decoder_threads(1, launching=self.on_cuda)

    @property
    def models(self) -> tuple[str, str]:
        """Student and teacher."""
        return self.pick(_MODELS, _MODELS, ("demo_student", "demo_teacher@random"))

    @property
    def side(self) -> int:
        """Of their images, in pixels."""
        return self.pick(224, 224, 64)

    def pick(self, full: _T, quick: _T, toy: _T) -> _T:
        """What belongs to the size."""
        return {"full": full, "quick": quick, "toy": toy}[self.size]

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal setting."""
        return {**vars(self), "work": str(self.work), "data": self.data and str(self.data)}

    @classmethod
    def from_json(cls, encoded: dict[str, Any]) -> "Setting":
        """Inverse of `to_json`."""
        data = encoded["data"]
        return cls(**{**encoded, "work": Path(encoded["work"]), "data": data and Path(data)})


@dataclass(frozen=True)
class Outcome:
    """What one part found.

    Attributes:
        verdict: passed or failed for a check; measured for figures without a bound; unproven for what could not run.
        text: figures in a line, or the reason.
        figures: the same for machines.
        seconds: that it took.
    """

    verdict: Verdict
    text: str
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Part:
    """One line of the table: a name, and what finds its outcome."""

    name: str
    run: Callable[[], Outcome]


def check(holds: bool, text: str, **figures: Any) -> Outcome:
    """Passed where it holds."""
    return Outcome("passed" if holds else "failed", text, figures)


def measured(text: str, **figures: Any) -> Outcome:
    """Figures that have no bound."""
    return Outcome("measured", text, figures)


def unproven(reason: str) -> Outcome:
    """What could not be run, and why."""
    return Outcome("unproven", reason)


def needs_cuda(setting: Setting, parts: Sequence[Part]) -> list[Part]:
    """The parts; on a processor, each of them unproven."""
    reason = unproven("needs a CUDA device")
    return list(parts) if setting.on_cuda else [Part(part.name, lambda: reason) for part in parts]


def run_part(part: Part) -> Outcome:
    """The part's outcome with its time; an exception is a failure, too little memory is none."""
    started = time.monotonic()
    try:
        outcome = part.run()
    except torch.OutOfMemoryError as error:
        outcome = unproven(f"out of memory: {_first_line(error).partition(' GPU ')[0]}")
    except Exception as error:
        trace = traceback.format_exc()[-_TRACEBACK_CHARS:]
        outcome = Outcome("failed", f"{type(error).__name__}: {_first_line(error)}", {"traceback": trace})
    return replace(outcome, seconds=time.monotonic() - started)


def run_parts(parts: Sequence[Part], ends: float) -> Iterator[tuple[str, Outcome | None]]:
    """Each part's name as it begins, with None, then with its outcome; none begins after `ends` of `time.monotonic`."""
    for part in parts:
        yield part.name, None
        yield part.name, run_part(part) if time.monotonic() < ends else unproven(NO_TIME)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "(no message)"
