"""What a field of a configuration says of itself, in its annotation: its help, its range, its freedom on resume.

lr: Annotated[float, About("learning rate at the given batch.", ABOVE_0)] = 0.1

Every other place that needs one of these facts (flags, checks, tables, the comparison on resume) reads it from there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from typing_extensions import Doc

from pipeline.core.ranges import ANY, Range


class About(Doc):
    """A field's own words. As a `Doc` (PEP 727) it is read by tyro, and by every other tool that knows these.

    Args:
        text: what the field is, for --help and for readers.
        range: which numbers it takes.
        free: whether a resumed run may change it: it says where, how fast or how often, never what comes out.
    """

    def __init__(self, text: str, range: Range = ANY, *, free: bool = False) -> None:  # noqa: A002
        super().__init__(text)
        self.range, self.free = range, free

    def __eq__(self, other: object) -> bool:
        return isinstance(other, About) and vars(self) == vars(other)

    def __hash__(self) -> int:  # typing caches Annotated by its parts: the same words with another range are others
        return hash((self.documentation, self.range, self.free))


def flag(name: str) -> str:
    """The flag of a field."""
    return f"--{name.replace('_', '-')}"


def abouts(kind: type) -> dict[str, About]:
    """What the fields of a dataclass say of themselves, by name; groups of fields, which are dataclasses, left out."""
    hints = get_type_hints(kind, include_extras=True)
    found = {
        item.name: next(
            (part for part in getattr(hints[item.name], "__metadata__", ()) if isinstance(part, About)), None
        )
        for item in fields(kind)
    }
    return {name: about for name, about in found.items() if about is not None}


def check_numbers(record: Any, flag_of: Callable[[str], str] = flag) -> None:
    """Refuse a number of `record`, or of one of its groups of fields, that is not finite or outside its field's range.

    Args:
        record: a dataclass.
        flag_of: the flag of a field's name.

    Raises:
        ConfigError: with the flag, the range and the value.
    """
    for path, value, about in leaves(record):
        if _is_numeric(value):
            (ANY if about is None else about.range).check(flag_of(path.rpartition(".")[2]), value)


def leaves(record: Any, path: str = "") -> Iterator[tuple[str, Any, About | None]]:
    """Each field of a dataclass and of its groups of fields: `group.field`, its value, and what it says of itself."""
    told = abouts(type(record))
    for item in fields(record):
        value = getattr(record, item.name)
        if is_dataclass(value):
            yield from leaves(value, f"{path}{item.name}.")
        else:
            yield f"{path}{item.name}", value, told.get(item.name)


def _is_numeric(value: Any) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return bool(value) and all(map(_is_numeric, value))
    return isinstance(value, int | float) and not isinstance(value, bool)
