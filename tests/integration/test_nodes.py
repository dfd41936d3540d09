"""Two nodes, each with its own torchrun, and a rank that dies and is replaced."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from jobs import (
    PROGRAM,
    CommandJob,
    ForkedJob,
    free_port,
    last_step,
    photo_flags,
    results_of,
    run_to_end,
    running,
    sample_lines,
    send,
    state_of,
    torchrun,
    wait_for_step,
    weights_of,
)

STEPS = 30


@dataclass(frozen=True)
class Nodes:
    """How a command is started on each of two nodes, and where they meet.

    Attributes:
        kind: what stands for a machine.
        address: of the first node, as the second one sees it.
        prefixes: what is put before a command to run it on a node.
        interfaces: the network interface of each node.
    """

    kind: str
    address: str
    prefixes: tuple[list[str], list[str]]
    interfaces: tuple[str, str] = field(default=("lo", "lo"))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Two network namespaces joined by a cable where that is permitted, else two agents on loopback."""
    with ExitStack() as stack:
        made = _namespaces(stack)
        yield made or Nodes("loopback", "127.0.0.1", ([], []))


def test_two_nodes_train_are_killed_and_resume(
    nodes: Nodes, photo_folder: Path, val_folder: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("nodes", nodes.kind)
    print(f"two nodes as {nodes.kind}")
    run, port = tmp_path / "run", free_port()
    flags = command_of(photo_folder, val_folder, run)
    jobs = [start_node(nodes, number, port, flags, tmp_path) for number in (0, 1)]
    with running(jobs[0]), running(jobs[1]):
        wait_for_step(run, 5, jobs[0])
        for job in jobs:
            job.kill()
    assert 5 <= last_step(run) < STEPS
    jobs = [start_node(nodes, number, port, flags, tmp_path) for number in (0, 1)]
    with running(jobs[0]), running(jobs[1]):
        assert [job.exit_codes() for job in jobs] == [[0], [0]], jobs[0].text() + jobs[1].text()
    text = jobs[0].text() + jobs[1].text()
    assert text.count("going on after step") == 1, "rank 0 speaks, and only it"
    assert text.count("2 rank(s) on cpu") == 2
    expected = tmp_path / "expected" / "run"
    run_to_end(ForkedJob(command_of(photo_folder, val_folder, expected), log=tmp_path / "log", size=2))
    check_equal(run, expected)


def test_a_rank_that_dies_is_replaced(photo_folder: Path, val_folder: Path, tmp_path: Path) -> None:
    """`--max-restarts=1`: the agent starts all ranks again, and they go on from the checkpoint."""
    run = tmp_path / "run"
    flags = command_of(photo_folder, val_folder, run)
    job = torchrun(flags, log=tmp_path / "log", options=("--standalone", "--max-restarts=1"))
    with running(job):
        workers = job.workers(2)
        wait_for_step(run, 5, job)
        send(workers[1], signal.SIGKILL)
        assert job.exit_codes() == [0], job.text()
    assert job.text().count("going on after step") == 1
    assert state_of(run)["state"] == "done"
    assert [line["step"] for line in results_of(run) if line["kind"] == "train"] == list(range(1, STEPS + 1))


def command_of(train: Path, val: Path, run: Path) -> list[str]:
    length = ["--epochs", "5", "--max-steps", str(STEPS), "--batch", "12"]
    pace = ["--eval-every", "100", "--log-every", "1", "--checkpoint-every", "2"]
    return ["smoke", *photo_flags(train, val), *length, *pace, "--out", str(run), "--trace", str(run.parent / "trace")]


def start_node(nodes: Nodes, number: int, port: int, flags: list[str], folder: Path) -> CommandJob:
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={nodes.address}:{port}", "--rdzv-id=test"]
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", *meeting]
    place = [f"--rdzv-conf=is_host={number == 0}", "--local-addr", _address(nodes, number)]
    interface = {"GLOO_SOCKET_IFNAME": nodes.interfaces[number]}
    line = [*nodes.prefixes[number], *agent, *place, str(PROGRAM), *flags]
    return CommandJob(line, log=folder / f"node-{number}", env=interface)


def check_equal(run: Path, expected: Path) -> None:
    assert state_of(run)["state"] == "done"
    assert results_of(run) == results_of(expected)
    ours, theirs = weights_of(run), weights_of(expected)
    assert all(ours[name].equal(value) for name, value in theirs.items())
    assert sample_lines(run.parent / "trace") == sample_lines(expected.parent / "trace")


def _address(nodes: Nodes, number: int) -> str:
    return nodes.address if number == 0 or nodes.kind == "loopback" else nodes.address[:-1] + "2"


def _namespaces(stack: ExitStack) -> Nodes | None:
    """Two namespaces and a pair of virtual interfaces; None where making them is not permitted."""
    if os.geteuid() != 0:
        return None
    tag, third = uuid.uuid4().hex[:6], os.getpid() % 250
    names, ends, network = [f"rfx{tag}{side}" for side in "ab"], [f"v{tag}{side}" for side in "ab"], f"10.213.{third}"
    try:
        for name in names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
        _ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            _ip("-n", name, "address", "add", f"{network}.{number}/24", "dev", end)
            for interface in ("lo", end):
                _ip("-n", name, "link", "set", interface, "up")
    except (OSError, subprocess.CalledProcessError):
        return None
    prefixes = tuple(["ip", "netns", "exec", name] for name in names)
    return Nodes("network namespaces", f"{network}.1", (prefixes[0], prefixes[1]), (ends[0], ends[1]))


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
