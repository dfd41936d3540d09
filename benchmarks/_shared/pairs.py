"""Fair comparisons on machines whose speed drifts: two things in turn, ratios within pairs, the median of pairs."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

say = partial(print, flush=True)  # in step with what child processes print


@dataclass(frozen=True)
class Pairs:
    """Alternating measurements of A and B, higher is better.

    Attributes:
        name: what is compared.
        unit: of the figures.
        a: A's figure in each pair.
        b: B's figure in each pair.
    """

    name: str
    unit: str
    a: tuple[float, ...]
    b: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """A / B, pair by pair."""
        return tuple(a / b for a, b in zip(self.a, self.b, strict=True))

    @property
    def ratio(self) -> float:
        """Median of the pairs' ratios."""
        return statistics.median(self.ratios)

    def to_json(self) -> dict[str, Any]:
        """All figures and their medians."""
        medians = {"median_a": statistics.median(self.a), "median_b": statistics.median(self.b)}
        return {**asdict(self), "ratios": self.ratios, "ratio": self.ratio, **medians}


def alternate(name: str, unit: str, a: Callable[[], float], b: Callable[[], float], repeats: int) -> Pairs:
    """Measure A and B in turn, `repeats` times, who begins changing from pair to pair."""
    figures: list[tuple[float, float]] = []
    for repeat in range(repeats):
        if repeat % 2:
            second = b()
            pair = (a(), second)
        else:
            pair = (a(), b())
        figures.append(pair)
        say(f"{name}, pair {repeat + 1} of {repeats}: {format_figure(pair[0])} and {format_figure(pair[1])} {unit}")
    return Pairs(name, unit, tuple(pair[0] for pair in figures), tuple(pair[1] for pair in figures))


def format_figure(value: float) -> str:
    """Three digits, or all of a large number's."""
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def seconds_of(work: Callable[[], object], count: int = 1, *, wait: Callable[[], None] = lambda: None) -> float:
    """Seconds of `count` calls in a row; `wait` returns when a device has done all that it was given."""
    wait()
    began = time.perf_counter()
    for _ in range(count):
        work()
    wait()
    return time.perf_counter() - began


def window_rate(batches: Iterator[Sized], *, skipped: int, counted: int) -> float:
    """Rows per second over `counted` batches, after `skipped` that may have been made while the stream stood still."""
    for _ in itertools.islice(batches, skipped):
        pass
    started = time.perf_counter()
    count = sum(len(batch) for batch in itertools.islice(batches, counted))
    return count / (time.perf_counter() - started)
