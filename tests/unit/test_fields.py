"""What fields say of themselves."""

from dataclasses import dataclass, field
from typing import Annotated

import pytest

from pipeline.core.errors import ConfigError
from pipeline.core.fields import About, abouts, check_numbers, leaves
from pipeline.core.ranges import ABOVE_0, SHARE


@dataclass(frozen=True)
class Group:
    first: Annotated[float, About("the same words.", ABOVE_0)] = 1.0
    second: Annotated[float, About("the same words.", SHARE)] = 0.5
    free: Annotated[float, About("the same words.", SHARE, free=True)] = 0.5
    plain: float = 1.0


@dataclass(frozen=True)
class Whole:
    group: Group = field(default_factory=Group)
    name: Annotated[str, About("no number.")] = "x"


def test_the_same_words_with_another_range_are_another_field() -> None:
    """typing gives one object for equal annotations."""
    told = abouts(Group)
    assert [told[name].range for name in ("first", "second", "free")] == [ABOVE_0, SHARE, SHARE]
    assert [told[name].free for name in ("first", "second", "free")] == [False, False, True]
    assert "plain" not in told


def test_groups_are_walked_and_numbers_checked_by_flag() -> None:
    assert [path for path, _, _ in leaves(Whole())] == [f"group.{name}" for name in vars(Group())] + ["name"]
    check_numbers(Whole())
    with pytest.raises(ConfigError, match=r"^--second must be 0 or more and below 1, got 1.0$"):
        check_numbers(Whole(Group(second=1.0)))
    with pytest.raises(ConfigError, match=r"^--plain must be finite, got nan$"):
        check_numbers(Whole(Group(plain=float("nan"))))
