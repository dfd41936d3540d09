"""The sections, in the order in which they run: values first, then times, then what takes longest to say little."""

import importlib
from dataclasses import dataclass
from types import ModuleType

from benchmarks.gpu.findings import Part, Setting


@dataclass(frozen=True)
class Section:
    """One file of this folder, whose `parts(setting)` says what there is to run.

    Attributes:
        name: the module's.
        title: what it settles.
        limit_s: its share of `FULL_S`: no part begins after it.
    """

    name: str
    title: str
    limit_s: float

    def load(self) -> ModuleType:
        """Import its file, and with it all that it needs."""
        return importlib.import_module(f"benchmarks.gpu.{self.name}")

    def parts(self, setting: Setting) -> list[Part]:
        """What it runs under this setting."""
        parts: list[Part] = self.load().parts(setting)
        return parts


FULL_S = 450.0  # of the eight minutes: a part that began in time may take some seconds more
SECTIONS = (
    Section("stack", "compiler and versions", 30),
    Section("losses", "fused losses against float64", 60),
    Section("captured", "fused losses in a CUDA graph", 40),
    Section("waits", "steady steps never wait for the device", 60),
    Section("hand_over", "pixels and rows reach a late consumer unharmed", 80),
    Section("precision", "teachers' precisions against float64", 45),
    Section("restart", "a restarted run is the same run", 90),
    Section("teacher_graph", "the teacher as a CUDA graph", 40),
    Section("steps", "a step's time, gaps and memory", 165),
    Section("plain_loop", "our step beside a plain loop", 60),
    Section("price", "what --deterministic costs", 45),
    Section("loaders", "loaders beside a sleeping step", 60),
    Section("ranks", "two ranks, killed and restarted", 90),
    Section("sanitizer", "compute-sanitizer on the fused losses", 120),
)


def section_names() -> tuple[str, ...]:
    """Their names, in order."""
    return tuple(section.name for section in SECTIONS)


def section_called(name: str) -> Section:
    """The section of this name."""
    return next(section for section in SECTIONS if section.name == name)
