"""How a run or job stands: its state.json, the truth for job scripts and for the other ranks."""

import json
import os
import time
from pathlib import Path
from typing import Any, Literal

from pipeline.core.atomic import publish_text

State = Literal["running", "done", "failed", "usage", "preempted"]
STATE_FILE = "state.json"


def write_state(folder: Path, state: State, message: str = "", *, file: str = STATE_FILE, **more: Any) -> None:
    """Replace the state.json of a folder."""
    content = {"state": state, "message": message, "time": time.time(), "job": os.environ.get("SLURM_JOB_ID"), **more}
    publish_text(folder / file, json.dumps(content, indent=1))


def read_state(folder: Path, *, file: str = STATE_FILE) -> dict[str, Any]:
    """The state.json of a folder, or {} where there is none."""
    path = folder / file
    state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return state
