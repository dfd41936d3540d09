"""Runs jobs on null devices: `python -m null_device.worker`, started by workers.py.

It imports the program once. Each line of its input asks for one of this module's `JOBS`; a fork of it, or one for each
rank, does that as a process of its own, with a CUDA context of its own. A line of the output is what rank 0 returned.
"""

import faulthandler
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

from launch.imagenet import parse_config
from null_device.cases import TEACHER, VIEWS, Case, commands
from null_device.device import Counts, counting, counts, difference, operations, set_late
from null_device.pairs import steady_step
from null_device.steps import Step, counted_calls
from pipeline import kernels
from pipeline.core import parts as folders
from pipeline.engine import session
from pipeline.engine.step import TrainStep
from pipeline.fit import fit
from pipeline.teachers.runner import TeacherRunner
from precompute.__main__ import parse_config as parse_precompute
from precompute.config import PrecomputeConfig
from precompute.fill import precompute

Result = dict[str, Any]
_LIMIT_S, _PORTS_A_PROCESS = 200, 32


def main() -> None:
    """Serve until the input ends."""
    _import_all()
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        for line in sys.stdin:
            print(json.dumps(_serve(**json.loads(line))), file=replies, flush=True)


def _import_all() -> None:
    """What a run imports when it needs it: once, instead of in each fork. None of it wakes the device."""
    for name in folders.names(kernels):
        importlib.import_module(f"{kernels.__name__}.{name}")
    with suppress(ImportError):
        importlib.import_module("triton.experimental.gluon")  # which every compilation of Triton's imports
    for place in ("triton.runtime.cache", "triton.compiler.compiler"):  # it reads all of Triton's files; has moved
        getattr(importlib.import_module(place), "triton_key", lambda: None)()
    parse_config(["smoke", "--out", "run"])


# ---- jobs: in a fork


@dataclass(frozen=True)
class Place:
    """Where a job runs: a folder of its own, and a TCP port for each run, since rank 0 may still be closing a group."""

    folder: Path
    ports: Sequence[int] = (0,)


def train(place: Place, cases: list[dict[str, Any]], stores: str) -> list[Result]:
    """Run cases one after the other, each to its end."""
    ports = zip(cases, place.ports, strict=True)
    return [_train_one(Case(**fields), place.folder, Path(stores), port) for fields, port in ports]


def _train_one(case: Case, folder: Path, stores: Path, port: int) -> Result:
    print(f"\n===== {case}", flush=True)
    os.environ["MASTER_PORT"] = str(port)
    set_late(case.late)
    before = counts()
    try:
        for config in commands(case, folder / str(case), stores):
            with counted_calls(TrainStep) as steps:
                assert fit(config) == "done"
    except Exception:
        if case.ranks > 1:
            raise  # the other rank waits for this one
        return {"error": traceback.format_exc(), "iterations": [], "calls": [], "total": {}}
    return _result(steps, before)


def fill(place: Place, keep: list[str], stores: str, flags: list[str]) -> list[Result]:
    """Precompute a store with each codec, named like it."""
    results = []
    for codec, port in zip(keep, place.ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        arguments = ["--teacher", TEACHER, "--device", "cuda", "--threads", "1", "--policy", "demo_train", *VIEWS]
        arguments += ["--batch", "16", "--keep", codec, "--store", str(Path(stores) / codec), *flags]
        config, before = parse_precompute(arguments), counts()
        assert isinstance(config, PrecomputeConfig)
        with counted_calls(TeacherRunner, "of_pixels") as passes:
            assert precompute(config) == "done"
        results.append(_result(passes, before))
    return results


def script(place: Place, source: str, late: bool, gpus: int) -> Any:
    """Execute source text, as device.run does; returns what it gave to `answer`."""
    os.environ["NULL_DEVICE_GPUS"] = str(gpus)
    set_late(late)
    given: list[Any] = []
    names = {"torch": torch, "counting": counting, "counts": counts, "operations": operations, "place": place}
    exec(source, {**names, "answer": given.append})
    return given[-1]


def real_pair(place: Place, recipe: str, flags: list[str]) -> Counts:
    """See pairs.py."""
    return steady_step(recipe, flags, place.folder / "run")


JOBS = {job.__name__: job for job in (train, fill, script, real_pair)}


def _result(steps: list[Step], before: Counts) -> Result:
    """Steps of the last run, counts of all; the last iteration, which goes on into evaluation, is left out."""
    return {
        "error": None,
        "iterations": [step.iteration for step in steps[:-1]],
        "calls": [step.call for step in steps],
        "total": difference(before, counts()),
    }


# ---- forks


def _serve(job: str, arguments: list[Any], folder: str, ranks: int, num_ports: int) -> dict[str, Any]:
    place = Place(Path(folder), _free_ports(num_ports))
    place.folder.mkdir(parents=True)
    forks = {_fork(job, arguments, place, rank, ranks): rank for rank in range(ranks)}
    codes = _wait(forks)
    log = "".join((place.folder / f"log-{rank}").read_text(errors="replace") for rank in range(ranks))
    if any(codes):
        return {"error": f"exit codes {codes}\n{log[-8000:]}"}
    return {"value": json.loads((place.folder / "value.json").read_text())}


def _fork(job: str, arguments: list[Any], place: Place, rank: int, ranks: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _settle(place.folder / f"log-{rank}", rank, ranks)
        with _gloo_for_nccl(), patch.object(session, "draw_curves"):  # four fifths of a run's time, all of the host
            value = JOBS[job](place, *arguments)
        if rank == 0:
            (place.folder / "value.json").write_text(json.dumps(value))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # threads of a failed run may wait for ever


def _settle(log: Path, rank: int, ranks: int) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.dump_traceback_later(_LIMIT_S, exit=True)
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    os.environ |= {name: str(value) for name, value in places.items()} | {"MASTER_ADDR": "127.0.0.1"}


def _wait(forks: dict[int, int]) -> list[int]:
    """Exit codes by rank; when one fails, the others, which would wait for it, are ended."""
    codes = [0] * len(forks)
    left = dict(forks)
    while left:
        pid, status = os.waitpid(-1, 0)
        codes[left.pop(pid)] = os.waitstatus_to_exitcode(status)
        if status:
            for other in left:
                os.kill(other, signal.SIGKILL)
    return codes


def _free_ports(num: int) -> list[int]:
    """TCP ports that nobody listens on, below those that the system hands out: other connections do not take them."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    start = os.getpid() * _PORTS_A_PROCESS % (first // 2)
    candidates = (first // 2 + (start + offset) % (first // 2) for offset in range(first // 2))
    return list(islice(filter(_is_free, candidates), num))


def _is_free(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) != 0


@contextmanager
def _gloo_for_nccl() -> Iterator[None]:
    """Ranks meet by gloo, which carries CUDA tensors too: NCCL talks to devices past the runtime, and is not modelled.

    gloo waits for the device in each collective; NCCL does not. So steps of several ranks say nothing about waits.
    """
    init_process_group = dist.init_process_group

    def init_gloo(backend: str, **options: Any) -> None:
        init_process_group("gloo", **{**options, "device_id": None})

    with patch.object(dist, "init_process_group", init_gloo):
        yield


if __name__ == "__main__":
    main()
