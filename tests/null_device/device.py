"""Runs programs on a CUDA device that computes nothing, and counts what they ask of it.

In a test:

    answer = run("x = torch.zeros(8, device='cuda')\\nwith counting() as seen: x + 1\\nanswer(seen)")
    assert answer == {"launches": 1}

The counts are of the whole process, all threads and devices:

    launches, triton          kernels of torch; kernels through the driver, Triton's and inductor's
    gemms, dnn                cuBLAS; cuDNN: one operation each, though it may be more kernels
    memsets, d2d, h2d, d2h    by direction
    pageable                  copies from or to host memory that is not pinned: the host waits
    syncs, event_syncs        the host waits for a stream or the device; for an event
    event_queries             polls, mostly of torch's own pools; free
    stream_waits              a stream waits for another; free for the host
    mallocs, host_allocs, frees   of the device's and of pinned memory; torch's pools make them few
    captured                  operations recorded into graphs
    graph_launches, replayed  launches of graphs; the operations in them
    refused                   what a capture does not allow; CUDA's error was the answer
    overwritten               late: pinned memory changed before the copy from it was waited for

All that is read from the device is bytes of 1 (csrc/null.h). Late, a copy to pinned memory is poison, NaN or -1, until
the host has waited for it.
"""

import ctypes
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from null_device.build import HERE, library_folder

Counts = dict[str, int]
TESTS, REPOSITORY = HERE.parent, HERE.parent.parent
# what the host launches one by one; a launch of a graph is one more, counted apart
_OPERATIONS = ("launches", "triton", "gemms", "dnn", "memsets", "d2d")
_ANSWER = "NULL_DEVICE_ANSWER"
_PREAMBLE = "import torch\nfrom null_device.device import answer, counting, counts, operations\n"
# with Python 3.11 torch aborts a process that ends while an autograd thread lets go of a backward pass
_END = "\nimport os, sys\nsys.stdout.flush()\nsys.stderr.flush()\nos._exit(0)\n"


def environment(*, late: bool = False, gpus: int = 1, trace: bool = False) -> dict[str, str]:
    """The variables, beside the process's own, under which a child process sees `gpus` null devices (0 to 8).

    Args:
        late: copies arrive only when the host waits for them.
        gpus: devices.
        trace: say on stderr what makes the host wait, what a capture refuses, and which calls are not modelled.

    Raises:
        CannotBuildError: see build.py.
    """
    folder = library_folder()
    return {
        "LD_PRELOAD": _joined(folder / "libcuda.so.1", "LD_PRELOAD"),
        "PYTHONPATH": _joined(f"{REPOSITORY}:{TESTS}", "PYTHONPATH"),
        "OMP_NUM_THREADS": "1",
        "TRITON_LIBCUDA_PATH": str(folder),
        # not the user's own: what is tuned here was tuned by no clock
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no pool of processes, each of which would import torch
        "NULL_DEVICE_GPUS": str(gpus),
        "NULL_DEVICE_LATE": str(int(late)),
        "NULL_DEVICE_TRACE": str(int(trace)),
    }


def run(
    script: str | Path,
    arguments: Sequence[str] = (),
    *,
    late: bool = False,
    gpus: int = 1,
    timeout_s: float = 240,
    env: Mapping[str, str] | None = None,
) -> Any:
    """Run Python in a process of its own on null devices; returns what it gave to `answer`.

    Args:
        script: a file, or source text, before which torch and this module's functions are imported.
        arguments: its command line.
        late, gpus: see `environment`.
        timeout_s: for the whole process.
        env: further variables.

    Raises:
        AssertionError: it failed, with what it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, reply = Path(folder) / "script.py", Path(folder) / "answer.json"
        path.write_text((_PREAMBLE + script if isinstance(script, str) else script.read_text()) + _END)
        variables = {**os.environ, **environment(late=late, gpus=gpus), _ANSWER: str(reply), **(env or {})}
        command = [sys.executable, str(path), *arguments]
        done = subprocess.run(
            command, env=variables, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
        return json.loads(reply.read_text()) if reply.exists() else None


def answer(value: Any) -> None:
    """In a script: what `run` returns, as JSON."""
    Path(os.environ[_ANSWER]).write_text(json.dumps(value))


def counts() -> Counts:
    """What this process has asked of its null devices so far.

    Raises:
        AttributeError: it has none.
    """
    text = ctypes.create_string_buffer(4096)
    _library().null_device_report(text, ctypes.c_size_t(len(text)))
    return {name: int(number) for name, number in (pair.split("=") for pair in text.value.decode().split())}


def difference(before: Counts, after: Counts) -> Counts:
    """What was asked between two results of `counts`, zeros left out."""
    return {name: number - before[name] for name, number in after.items() if number != before[name]}


@contextmanager
def counting() -> Iterator[Counts]:
    """A dictionary that holds, when the block has ended, what it asked."""
    seen: Counts = {}
    before = counts()
    yield seen
    seen.update(difference(before, counts()))


def operations(seen: Mapping[str, int]) -> int:
    """Operations that the host launched one by one."""
    return sum(seen.get(name, 0) for name in _OPERATIONS)


def set_late(late: bool) -> None:
    """Whether copies of this process arrive late from now on."""
    _library().null_device_set_late(int(late))


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _joined(first: object, variable: str) -> str:
    rest = os.environ.get(variable)
    return f"{first}:{rest}" if rest else str(first)
