"""The fused losses under compute-sanitizer's memcheck, at small sizes, every tensor in an allocation of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.gpu.findings import Outcome, Part, Setting, check, needs_cuda, unproven
from benchmarks.gpu.processes import last_line

SECTION = (14, "compute-sanitizer on the fused losses", 120)

_LIMIT_S = 110.0
_SUMMARY = re.compile(r"ERROR SUMMARY: (\d+) error")
_PLACES = ("/usr/local/cuda/bin/compute-sanitizer", "/usr/local/cuda/compute-sanitizer/compute-sanitizer")


def parts(setting: Setting) -> list[Part]:
    """One run of the section `losses`."""
    return needs_cuda(setting, [Part("memcheck", partial(_memcheck, setting))])


def program() -> str | None:
    """Where compute-sanitizer is; None where it is not."""
    return shutil.which("compute-sanitizer") or next((place for place in _PLACES if Path(place).is_file()), None)


def _memcheck(setting: Setting) -> Outcome:
    sanitizer = program()
    if sanitizer is None:
        return unproven("there is no compute-sanitizer here")
    toy = replace(setting, size="toy")
    results = setting.work / "sanitized.jsonl"
    command = [sanitizer, "--tool", "memcheck", "--report-api-errors", "no", sys.executable, "-m", "benchmarks.gpu"]
    command += ["losses", json.dumps(toy.to_json()), str(results)]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # else a pool hides a read past the end
    try:
        done = subprocess.run(
            command,
            input=f"{_LIMIT_S}\n",
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=_LIMIT_S,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return unproven(f"compute-sanitizer still ran after {_LIMIT_S:.0f} s")
    print(done.stdout[-5000:], done.stderr[-2000:])
    return judge(done.stdout + done.stderr, results.read_text().splitlines() if results.exists() else [])


def judge(output: str, results: list[str]) -> Outcome:
    """Of what compute-sanitizer printed, and the lines of the section that ran in it."""
    outcomes = [line["outcome"] for line in map(json.loads, results[1:]) if line["outcome"] is not None]
    summary = _SUMMARY.search(output)
    if summary is None or not outcomes:
        return unproven(f"compute-sanitizer did not come to its end: {last_line(output)}")
    wrong = sum(outcome["verdict"] != "passed" for outcome in outcomes)
    errors = int(summary[1])
    text = f"{errors} errors in {len(outcomes)} losses" + (f", {wrong} with wrong values" if wrong else "")
    return check(errors == 0 and wrong == 0, text)
