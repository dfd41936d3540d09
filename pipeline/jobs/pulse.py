"""What ranks tell each other while each does units of its own: progress, a wish to stop, a failure.

A thread on every rank meets the others a few times a second. So no rank waits at the end for longer than torch's
time-out allows while another still has hours to go, and nobody computes on after another has failed.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import PeerError
from pipeline.devices.world import World
from pipeline.jobs.signals import StopRequest

_INTERVAL_S = 0.5
_LAST_WORDS_S = 10.0


@dataclass(frozen=True)
class Totals:
    """Over all ranks: rows and bytes written, shards sealed, shards given up because of a wish to stop."""

    rows: int = 0
    num_bytes: int = 0
    shards: int = 0
    left: int = 0


class Pulse:
    """A context manager around a rank's own work; leaving it waits until every rank has left.

    The control group of `world` belongs to the thread meanwhile.

    Args:
        world: the ranks.
        stop: this process's signals.
        on_beat: called in the thread, on every rank, with the sums over all ranks.
    """

    def __init__(self, world: World, stop: StopRequest, on_beat: Callable[[Totals], None]) -> None:
        self._world, self._stop, self._on_beat = world, stop, on_beat
        self._own: dict[str, Any] = {"rows": 0, "num_bytes": 0, "shards": 0, "left": 0}
        self._own |= {"finished": False, "stop": None, "failed": None}
        self._heard: list[dict[str, Any]] = []
        self._broken: BaseException | None = None
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    @property
    def stop_name(self) -> str | None:
        """The signal that any rank has got."""
        return self._stop.name or next((one["stop"] for one in self._heard if one["stop"]), None)

    @property
    def totals(self) -> Totals:
        """As of the last beat."""
        names = ("rows", "num_bytes", "shards", "left")
        return Totals(**{name: sum(one[name] for one in self._heard) for name in names})

    def count(self, rows: int, num_bytes: int, sealed: bool) -> None:
        """Add what this rank has written; for the writing thread alone."""
        self._own["rows"] += rows
        self._own["num_bytes"] += num_bytes
        self._own["shards"] += int(sealed)

    def leave(self, shards: int) -> None:
        """Say that this rank ends with so many of its shards not made."""
        self._own["left"] = shards

    def check(self) -> None:
        """Raise what has happened to other ranks.

        Raises:
            PeerError: another rank failed, and said so.
            RuntimeError: the connection to another rank broke.
        """
        failed = next((one["failed"] for one in self._heard if one["failed"]), None)
        if failed is not None and self._own["failed"] is None:
            raise PeerError(f"another rank failed: {failed}")
        if self._broken is not None:
            raise self._broken

    def __enter__(self) -> "Pulse":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is not None:
            self._own["failed"] = str(error) or type(error).__name__
        self._own["finished"] = True
        self._wake.set()
        self._thread.join(None if error is None else _LAST_WORDS_S)
        if error is None:
            self.check()

    def _run(self) -> None:
        try:
            while not self._is_over():
                self._wake.wait(_INTERVAL_S)
                self._own["stop"] = self._stop.name
                self._heard = self._world.gather(self._own)
                self._on_beat(self.totals)
        except Exception as error:
            self._broken = error

    def _is_over(self) -> bool:
        finished = bool(self._heard) and all(one["finished"] for one in self._heard)
        return finished or any(one["failed"] for one in self._heard)
