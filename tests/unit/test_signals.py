"""Signals become a flag."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pipeline.jobs.signals import StopRequest

NUMBERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@pytest.fixture(autouse=True)
def _handlers_come_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_raises_the_flag_and_nothing_else(number: signal.Signals) -> None:
    stop = StopRequest()
    stop.install()
    assert not stop.raised
    os.kill(os.getpid(), number)
    assert stop.raised
    assert stop.name == number.name


def test_a_second_interrupt_ends_at_once() -> None:
    program = (
        "import os, signal, time\n"
        "from pipeline.jobs.signals import StopRequest\n"
        "stop = StopRequest(); stop.install()\n"
        "os.kill(os.getpid(), signal.SIGINT); print('first', stop.name, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGINT); print('second')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "first SIGINT\n"
    assert done.returncode == -signal.SIGINT


def test_a_worker_hears_of_its_agents_death() -> None:
    """The agent dies by a signal that it does not pass on; the worker's flag rises."""
    worker = (
        "import time\n"
        "from pipeline.jobs.signals import StopRequest\n"
        "stop = StopRequest(); stop.install(); print('ready', flush=True)\n"
        "for _ in range(1000):\n"
        "    if stop.raised: print(stop.name, flush=True); break\n"
        "    time.sleep(0.01)\n"
    )
    agent = (
        "import os, subprocess, sys\n"
        "os.environ['TORCHELASTIC_RUN_ID'] = 'x'\n"
        f"subprocess.Popen([sys.executable, '-c', {worker!r}]); sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", agent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "SIGTERM\n"
