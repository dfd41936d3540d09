"""Signals become a flag that is read at step boundaries; nothing is saved inside a handler."""

import ctypes
import os
import signal
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Raised by SIGTERM, SIGUSR1 (Slurm's early warning) and Ctrl-C; a second Ctrl-C ends at once.

    A SIGUSR1 to torchrun's agent kills the agent and would leave its workers behind. So a worker also asks the kernel
    to send it SIGTERM when its parent dies: a signal to the agent, whichever it is, reaches the worker.
    """

    def __init__(self) -> None:
        self.name: str | None = None

    @property
    def raised(self) -> bool:
        """Whether a signal has come."""
        return self.name is not None

    def install(self) -> None:
        """Handle the signals in this process (main thread only)."""
        self._pid = os.getpid()
        for number in _HANDLED:
            signal.signal(number, self._handle)
        if "TORCHELASTIC_RUN_ID" in os.environ:
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if _agent_is_gone():
                self.name = "the death of torchrun's agent"

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked helper inherited this handler
            raise SystemExit(128 + number)
        if number == signal.SIGINT and self.raised:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
        self.name = signal.Signals(number).name


def _agent_is_gone() -> bool:
    """Whether init has adopted this worker already. In a container torchrun may itself be process 1, a Python."""
    if os.getppid() != 1:
        return False
    try:
        return not Path("/proc/1/exe").readlink().name.startswith("python")
    except OSError:
        return True  # another user's process is not our agent
