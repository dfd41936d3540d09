"""The sections, in the order in which they run: values first, then times, then what takes longest to say little.

A file of this folder is a section. It has `parts(setting)`, which says what there is to run, and SECTION: its place in
the order, its title, and the seconds after which none of its parts begins, of `FULL_S`. These are read without running
the file: one that fails costs its own section alone.
"""

import importlib
import sys
from dataclasses import dataclass
from types import ModuleType

from benchmarks._shared.source import constant_of
from benchmarks.gpu.findings import Part, Setting
from pipeline.core import parts

FULL_S = 450.0  # of the eight minutes: a part that began in time may take some seconds more


@dataclass(frozen=True)
class Section:
    """One file of this folder.

    Attributes:
        name: the module's.
        title: what it settles.
        limit_s: its share of `FULL_S`.
    """

    name: str
    title: str
    limit_s: float

    def load(self) -> ModuleType:
        """Import its file, and with it all that it needs."""
        return importlib.import_module(f"{__name__}.{self.name}")

    def parts(self, setting: Setting) -> list[Part]:
        """What it runs under this setting."""
        parts: list[Part] = self.load().parts(setting)
        return parts


def _found() -> dict[str, Section]:
    names = parts.names(sys.modules[__name__])
    told = sorted((constant_of(f"{__name__}.{name}", "SECTION"), name) for name in names)
    return {name: Section(name, title, limit_s) for (_, title, limit_s), name in told}


SECTIONS = _found()
