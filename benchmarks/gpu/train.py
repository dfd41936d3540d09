"""A run in a process of its own, or one rank of it.

python -m benchmarks.gpu.train CONFIG

CONFIG is a file with `RunConfig.to_json`.
"""

import json
import sys
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.core.command import run_command
from pipeline.fit import fit


def main() -> None:
    """Train it, or go on with it."""
    fit(RunConfig.from_json(json.loads(Path(sys.argv[1]).read_text())))


if __name__ == "__main__":
    run_command(main)
