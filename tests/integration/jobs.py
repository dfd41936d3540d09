"""Training jobs as real processes: started by torchrun or forked, watched, signalled, killed.

A forked job's ranks come from a fork server that has imported the program already: real processes with real exit codes
and signals that start in a tenth of a second, for the tests in which torchrun itself is not the point.
"""

import faulthandler
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from launch.imagenet import main
from pipeline.core.command import run_command
from pipeline.data.scan import scan_folder
from pipeline.devices.world import World, start_world, stop_world

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PROGRAM = REPOSITORY / "launch" / "imagenet.py"
START_S = 240.0  # a start imports torch: seconds on an idle machine, minutes on a crowded one
_POLL_S = 0.005
_SPEED_FIELDS = {"images_per_s", "data_wait_share", "slowest_rank", "slowest_rank_wait_share"}
_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload(["launch.imagenet", "pipeline.fit", "precompute.fill"])


class Job:
    """A running job.

    Attributes:
        log: file with everything that its processes print.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)

    def pids(self) -> list[int]:
        """The processes of the job, in rank order where there is one."""
        raise NotImplementedError

    def exit_codes(self, timeout_s: float = START_S) -> list[int]:
        """Wait for the end; the exit codes of the processes that this test started."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL to every process of the job, at once, and wait until they are gone."""
        pids = self.pids()
        for pid in pids:
            send(pid, signal.SIGKILL)
        self.exit_codes()
        wait_until(lambda: not any(is_alive(pid) for pid in pids), "killed processes to be gone", self)

    def text(self) -> str:
        """Everything printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class ForkedJob(Job):
    """Ranks without torchrun; with one rank, the plain `python launch/imagenet.py`, or another program's `entry`."""

    def __init__(
        self, arguments: Sequence[str], *, log: Path, size: int = 1, entry: Callable[[], object] = main
    ) -> None:
        super().__init__(log)
        places = [_place(rank, size, port) for port in [free_port()] for rank in range(size)]
        self._ranks = [_FORKS.Process(target=_run_rank, args=(list(arguments), place, log, entry)) for place in places]
        for rank in self._ranks:
            rank.start()

    def pids(self) -> list[int]:
        return [rank.pid for rank in self._ranks if rank.pid is not None]

    def exit_codes(self, timeout_s: float = START_S) -> list[int]:
        end = time.monotonic() + timeout_s
        for rank in self._ranks:
            rank.join(max(0.1, end - time.monotonic()))
        codes = [rank.exitcode for rank in self._ranks]
        assert None not in codes, f"ranks are still running after {timeout_s} s: {codes}\n{self.text()}"
        return [code for code in codes if code is not None]


class CommandJob(Job):
    """A command line in a session of its own; torchrun and its workers, or one process."""

    def __init__(self, command: Sequence[str], *, log: Path, env: dict[str, str] | None = None) -> None:
        super().__init__(log)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **(env or {})}
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                list(command),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=REPOSITORY,
                start_new_session=True,
            )

    def workers(self, count: int) -> list[int]:
        """Wait until torchrun has started its workers, and return their process ids, by rank."""
        wait_until(lambda: len(self._children()) >= count, f"{count} workers", self)
        return sorted(self._children(), key=_rank_of)

    def pids(self) -> list[int]:
        return [*descendants(self.process.pid), self.process.pid]

    def exit_codes(self, timeout_s: float = START_S) -> list[int]:
        try:
            return [self.process.wait(timeout_s)]
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s} s\n{self.text()}") from None

    def _children(self) -> list[int]:
        return [pid for pid in descendants(self.process.pid) if _rank_of(pid) >= 0]


def run_on_ranks(function: Callable[[World], Any], *, size: int, folder: Path) -> list[Any]:
    """Call `function(world)` on every rank of a gloo group; what each returned (JSON), in rank order."""
    port = free_port()
    log, results = folder / f"log-{size}", [folder / f"result-{size}-{rank}.json" for rank in range(size)]
    targets = [(function, _place(rank, size, port), log, result) for rank, result in enumerate(results)]
    ranks = [_FORKS.Process(target=_call, args=arguments) for arguments in targets]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(START_S)
    assert {rank.exitcode for rank in ranks} == {0}, log.read_text()
    return [json.loads(result.read_text()) for result in results]


def torchrun(
    arguments: Sequence[str], *, log: Path, nproc: int = 2, options: Sequence[str] = ("--standalone",)
) -> CommandJob:
    """`torchrun --nproc_per_node=NPROC launch/imagenet.py ARGUMENTS`."""
    agent = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={nproc}", *options]
    return CommandJob([*agent, str(PROGRAM), *arguments], log=log)


def command(arguments: Sequence[str], *, log: Path, env: dict[str, str] | None = None) -> CommandJob:
    """`python launch/imagenet.py ARGUMENTS`."""
    return CommandJob([sys.executable, str(PROGRAM), *arguments], log=log, env=env)


@contextmanager
def running(job: Job) -> Iterator[Job]:
    """Kill whatever is left of the job when the block ends."""
    try:
        yield job
    finally:
        for pid in job.pids():
            send(pid, signal.SIGKILL)


def run_to_end(job: Job, *, expected: int = 0, timeout_s: float = START_S) -> str:
    """Wait for a job that must end with `expected` on every rank; returns what it printed."""
    with running(job):
        codes = job.exit_codes(timeout_s)
    assert set(codes) == {expected}, f"exit codes {codes}, expected {expected}\n{job.text()}"
    return job.text()


def wait_until(condition: Callable[[], bool], what: str, job: Job, timeout_s: float = START_S) -> None:
    """Poll until `condition` holds; a failure shows what the job printed."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"waited {timeout_s} s for {what}\n{job.text()}"
        time.sleep(_POLL_S)


def wait_for_words(job: Job) -> None:
    """Wait until a job has printed something new."""
    before = len(job.text())
    wait_until(lambda: len(job.text()) > before, "a sign of life", job)


def wait_for_step(run: Path, step: int, job: Job) -> None:
    """Wait until metrics.jsonl has `step` (needs `--log-every 1`); a job that ends before is a failure."""

    def there() -> bool:
        return last_step(run) >= step or not any(is_alive(pid) for pid in job.pids())

    wait_until(there, f"step {step}", job)
    assert last_step(run) >= step, f"the job ended before step {step}\n{job.text()}"


def last_step(run: Path) -> int:
    """The step of the last training line of metrics.jsonl."""
    return max((line["step"] for line in lines_of(run / "metrics.jsonl")), default=0)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a JSON-lines file."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def results_of(run: Path) -> list[dict[str, Any]]:
    """Every line of metrics.jsonl without what depends on the clock."""
    lines = lines_of(run / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in _SPEED_FIELDS} for line in lines]


def state_of(run: Path) -> dict[str, Any]:
    """RUN/state.json."""
    state: dict[str, Any] = json.loads((run / "state.json").read_text())
    return state


def weights_of(run: Path, name: str = "student.pt") -> dict[str, Any]:
    """The exported state_dict, BatchNorm's buffers included."""
    weights: dict[str, Any] = torch.load(run / name, weights_only=True)["model"]
    return weights


def sample_lines(folder: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """The traces of all ranks, by (step, micro-batch): ids, plan_crc, image_crc. A step traced twice is a failure."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for line in (line for path in sorted(folder.glob("rank-*.jsonl")) for line in lines_of(path)):
        size = len(line["ids"]) // len(line["micro_batches"])
        for place, index in enumerate(line["micro_batches"]):
            part = {name: line[name][place * size : (place + 1) * size] for name in ("ids", "plan_crc", "image_crc")}
            assert (line["step"], index) not in found, f"traced twice: step {line['step']}, micro-batch {index}"
            found[line["step"], index] = {"view": line["view"], **part}
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def descendants(pid: int) -> list[int]:
    """All processes below `pid`."""
    parents = dict(_parents())
    found, changed = {pid}, True
    while changed:
        below = {child for child, parent in parents.items() if parent in found}
        changed = not below <= found
        found |= below
    return sorted(found - {pid})


def send(pid: int, number: int) -> None:
    """Signal one process; one that has gone is fine."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _parents() -> Iterable[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])


def _rank_of(pid: int) -> int:
    """RANK in a process's environment, -1 where there is none."""
    with suppress(OSError):
        for setting in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if setting.startswith(b"RANK="):
                return int(setting[5:])
    return -1


def _place(rank: int, size: int, port: int) -> dict[str, str]:
    if size == 1:
        return {}
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    return {**{name: str(value) for name, value in ranks.items()}, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _run_rank(arguments: list[str], place: dict[str, str], log: Path, entry: Callable[[], object]) -> None:
    """In the forked process: become the command line."""
    _settle(place, log)
    sys.argv = [str(PROGRAM), *arguments]
    try:
        run_command(entry)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _call(function: Callable[[World], Any], place: dict[str, str], log: Path, result: Path) -> None:
    _settle(place, log)
    world = start_world("cpu", 1)
    result.write_text(json.dumps(function(world)))
    stop_world(world)


def _settle(place: dict[str, str], log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(place)
    torch.set_num_threads(1)
    faulthandler.enable()


def photo_flags(train: Path, val: Path) -> list[str]:
    """The flags that train on two folders of photos, small and fast."""
    folders = ["--train-dir", str(train), "--val-dir", str(val)]
    return [*folders, "--backend", "torchvision", "--resolution", "32", "--eval-batch", "8", "--threads", "1"]


def write_dropout_student(folder: Path) -> str:
    """Write a user's own student, smooth, with BatchNorm and dropout; returns its name for `--student`."""
    path = folder / "own.py"
    path.write_text(_STUDENT)
    return f"{path}:student"


_STUDENT = """
from torch import nn


def student(*, num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.SiLU(),
        nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.SiLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, num_classes),
    )
"""


def flip_byte(path: Path, offset: int | None = None) -> None:
    """Change one bit of a file, of its middle or of the byte at `offset`."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if offset is None else offset] ^= 1
    path.write_bytes(content)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder: what must not change."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def cut_after_indexing(data: Path, *damaged: str) -> None:
    """Index both splits, and then cut images at their old size, so that only decoding can tell."""
    for split in ("train", "val"):
        scan_folder(data / split)[0].save(data / f"{split}.index.h5")
    for name in damaged or ("train/class1/003.jpg",):
        (data / name).write_bytes(bytes((data / name).stat().st_size))


def teacher_of_classes(count: int, path: Path) -> None:
    from pipeline.models.families.demo import demo_teacher

    torch.save(demo_teacher(num_classes=count).state_dict(), path)


def check_said(text: str, words: list[str]) -> None:
    """One message, with these words, of a program or of its parser; no traceback."""
    assert [word for word in words if word not in text] == [], text
    assert len(re.findall("error: |╭─ ", text)) == 1, text
    assert "Traceback" not in text
