"""The numbers that a flag takes: finite, and within bounds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """Finite numbers within bounds; None is no bound.

    Attributes:
        least: the least number.
        above: a bound that is no such number itself.
        most: the greatest number.
        below: a bound that is no such number itself.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def check(self, flag: str, value: float | Sequence[float]) -> None:
        """Refuse a number outside, or any such of several.

        Raises:
            ConfigError: with the flag, the range and the value.
        """
        numbers = value if isinstance(value, Sequence) else (value,)
        finite = all(not isinstance(number, float) or math.isfinite(number) for number in numbers)
        if not finite or not all(self._holds(number) for number in numbers):
            rule = " and ".join((*(() if finite else ("finite",)), *self._bounds()))
            raise ConfigError(f"{flag} must be {rule}, got {' '.join(map(str, numbers))}")

    def _holds(self, number: float) -> bool:
        return (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )

    def _bounds(self) -> list[str]:
        told = {"{} or more": self.least, "above {}": self.above, "{} or less": self.most, "below {}": self.below}
        return [text.format(bound) for text, bound in told.items() if bound is not None]


ANY = Range()
ABOVE_0 = Range(above=0)
NOT_NEGATIVE = Range(least=0)
SHARE = Range(least=0, below=1)
SEED = Range(least=0, below=2**32)
