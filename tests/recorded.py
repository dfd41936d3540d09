"""What recorded baselines share: the programs, run in this process, and how exactly numbers are compared.

The files of a baseline are made by an earlier commit's own programs: a checkout of it comes first on the path.

    PYTHONPATH=CHECKOUT:tests python tests/golden/test_begun_earlier.py
"""

import json
import signal
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"
NETWORKS, PHOTOS = GOLDEN / "run_v1", GOLDEN / "photos"
EXIT_PREEMPTED = 75
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_ELSEWHERE = 1e-4
# images that exist nowhere, on one core, for the networks of NETWORKS
SYNTHETIC = "--backend synthetic --synthetic-samples 64 --synthetic-classes 4"
ONE_CORE = "--device cpu --threads 1 --resolution 32"
STUDENT, TEACHER = "--student networks.py:student", "--teacher networks.py:teacher@teacher.pt"


def train(line: str, *more: object) -> int:
    """`launch/imagenet.py LINE MORE`, its paths relative to NETWORKS, in this process; its exit code."""
    from launch.imagenet import main

    return _run(main, line, *more)


def fill(line: str, *more: object) -> int:
    """`python -m precompute LINE MORE` likewise."""
    from precompute.__main__ import main

    return _run(main, line, *more)


def _run(main: Any, line: str, *more: object) -> int:
    with pytest.MonkeyPatch.context() as patch, _signals_kept():
        patch.chdir(NETWORKS)
        patch.setattr(sys, "argv", ["program", *line.split(), *map(str, more)])
        try:
            return EXIT_PREEMPTED if main() == "preempted" else 0
        except SystemExit as end:
            return int(end.code or 0)


@contextmanager
def _signals_kept() -> Iterator[None]:
    before, threads = [signal.getsignal(number) for number in _SIGNALS], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)


def losses_of(run: Path) -> list[dict[str, float]]:
    """The numbers of metrics.jsonl's training lines that do not depend on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clock = ("kind", "images_per_s", "data_wait_share", "slowest_rank", "slowest_rank_wait_share")
    return [{key: line[key] for key in line if key not in clock} for line in lines if line["kind"] == "train"]


def weights_of(run: Path, name: str = "student.pt") -> dict[str, Any]:
    """An exported state_dict as lists."""
    weights = torch.load(run / name, weights_only=True)["model"]
    return {key: value.tolist() for key, value in weights.items()}


def arithmetic() -> dict[str, Any]:
    """What decides the last digits of a CPU's results: torch, its choice of kernels, the kind of processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    kind = [line for line in lines if line.startswith(("vendor_id", "cpu family", "model\t", "CPU part"))]
    processor = zlib.crc32("\n".join(sorted(set(kind))).encode())
    return {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability(), "processor": processor}


def is_here(made_with: dict[str, Any]) -> bool:
    """Whether numbers were recorded with the arithmetic that this process has."""
    return made_with == arithmetic()


def check_equal(found: Any, recorded: Any, made_with: dict[str, Any], what: str) -> None:
    """The same names and shapes, and the same numbers: to the last digit where arithmetic is the same, else nearly."""
    same = is_here(made_with)
    how = "to the last digit" if same else f"to {_ELSEWHERE}: recorded with {made_with}, here is {arithmetic()}"
    ours, theirs = dict(leaves(found)), dict(leaves(recorded))
    assert list(ours) == list(theirs), what
    for place, value in theirs.items():
        close = ours[place] == value if same else np.isclose(ours[place], value, rtol=_ELSEWHERE, atol=_ELSEWHERE)
        assert close, f"{what}: {place} is {ours[place]!r}, was {value!r} (compared {how})"


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every number, word and null of nested dictionaries and lists, with its place: ("/running/threads", 1)."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, f"{place}/{key}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from leaves(part, f"{place}/{number}")
    else:
        yield place, value


def read(file: Path) -> Any:
    """A baseline."""
    return json.loads(file.read_text(encoding="utf-8"))


def write(file: Path, recorded: Any) -> None:
    """Record a baseline, one line to each of its two upper levels' entries."""
    parts = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in recorded.items()]
    file.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
