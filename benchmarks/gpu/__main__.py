"""One section in this process.

python -m benchmarks.gpu NAME SETTING RESULTS

SETTING is `Setting.to_json`. It imports what it needs and waits for a line on its standard input: the seconds after
which no part begins. RESULTS gets a line of JSON for each part as it begins and as it ends, so that a process that dies
has still said what it found and where it was.
"""

import faulthandler
import gc
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.findings import Setting, run_parts
from benchmarks.gpu.sections import SECTIONS, Section


def main(name: str, setting: Setting, results: Path) -> None:
    """Run the section's parts and write what they find; nothing where the standard input ends without a line."""
    faulthandler.enable()
    section = SECTIONS[name]
    section.load()
    line = sys.stdin.readline()
    if line:
        _run(section, setting, results, time.monotonic() + float(line))


def _run(section: Section, setting: Setting, results: Path, ends: float) -> None:
    if setting.on_cuda:
        torch.cuda.set_device(setting.device)
    parts = section.parts(setting)
    with results.open("a") as lines:
        _write(lines, {"parts": [part.name for part in parts]})
        for part, outcome in run_parts(parts, ends):
            _write(lines, {"part": part, "outcome": None if outcome is None else asdict(outcome)})
            if outcome is not None:
                _let_go(setting)


def _write(lines: Any, line: dict[str, Any]) -> None:
    lines.write(json.dumps(line) + "\n")
    lines.flush()


def _let_go(setting: Setting) -> None:
    """Give back what a part has left: networks hang in cycles, and the next part's peak is its own."""
    gc.collect()
    if setting.on_cuda:
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(sys.argv[1], Setting.from_json(json.loads(sys.argv[2])), Path(sys.argv[3]))
