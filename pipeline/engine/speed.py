"""How fast a run is, and whether it waits for data: this rank's clock, gathered over all ranks once in a while."""

import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from pipeline.devices.world import World

_GATHER_EVERY_STEPS = 50


@dataclass(frozen=True)
class Reading:
    """Speed since the last reading.

    Attributes:
        images_per_s: over all ranks.
        wait_share: share of the time that this rank waited for data.
        slowest_rank: the rank that waited most, when last gathered.
        slowest_share: its share.
    """

    images_per_s: float
    wait_share: float
    slowest_rank: int
    slowest_share: float

    def as_metrics(self) -> dict[str, float]:
        """For metrics.jsonl."""
        return {
            "images_per_s": round(self.images_per_s, 1),
            "data_wait_share": round(self.wait_share, 4),
            "slowest_rank": self.slowest_rank,
            "slowest_rank_wait_share": round(self.slowest_share, 4),
        }

    def describe_wait(self) -> str:
        """For the progress line."""
        if self.slowest_rank < 0:
            return f"{self.wait_share:.0%}"
        return f"{self.wait_share:.0%} (most: rank {self.slowest_rank}, {self.slowest_share:.0%})"


class Speed:
    """Counts steps and waiting time; evaluation and saving are left out (`pause`, `resume`)."""

    def __init__(self, world: World, batch: int) -> None:
        self._world, self._batch = world, batch
        self._seconds, self._waited, self._steps = 0.0, 0.0, 0
        self._since: float | None = time.perf_counter()
        self._last = (0.0, 0.0, 0)
        self._last_gather = (0.0, 0.0)
        self._pending: tuple[Any, list[torch.Tensor]] | None = None
        self._slowest = (-1, 0.0)
        self._reading = Reading(0.0, 0.0, -1, 0.0)

    def add(self, waited_s: float) -> None:
        """Count one step, with the seconds that it waited for data."""
        self._steps += 1
        self._waited += waited_s
        if self._world.size > 1 and self._steps % _GATHER_EVERY_STEPS == 0:
            self._gather()

    def pause(self) -> None:
        """Stop the clock."""
        self._seconds, self._since = self._elapsed(), None

    def resume(self) -> None:
        """Let the clock go on."""
        self._since = time.perf_counter()

    def reading(self) -> Reading:
        """The speed since the last reading; that reading again where no step has come since."""
        now = self._elapsed()
        seconds, waited, steps = now - self._last[0], self._waited - self._last[1], self._steps - self._last[2]
        if steps and seconds > 0:
            self._last = (now, self._waited, self._steps)
            self._reading = Reading(steps * self._batch / seconds, waited / seconds, *self._slowest)
        return self._reading

    def totals(self, seconds_before: float, waited_before: float) -> dict[str, float]:
        """Seconds of training and of waiting, with those of earlier starts."""
        return {"seconds": seconds_before + self._elapsed(), "waited": waited_before + self._waited}

    def _elapsed(self) -> float:
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._seconds + running

    def _gather(self) -> None:
        """Read the gathering begun some steps ago, begin the next: no rank waits for another."""
        if self._pending is not None:
            work, shares = self._pending
            work.wait()
            values = [float(share) for share in shares]
            self._slowest = (max(range(len(values)), key=values.__getitem__), max(values))
        now = self._elapsed()
        share = (self._waited - self._last_gather[1]) / max(now - self._last_gather[0], 1e-9)
        self._last_gather = (now, self._waited)
        shares = [torch.zeros(1) for _ in range(self._world.size)]
        work = dist.all_gather(shares, torch.tensor([share]), group=self._world.control, async_op=True)
        self._pending = (work, shares)
