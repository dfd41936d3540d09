"""All methods side by side: what each needs, what it trains, what is published of it."""

import re
from collections.abc import Sequence

from pipeline.losses._shared.pairs import R34_R18, R50_MBV1, R50_R18, Pair
from pipeline.losses._shared.record import STAGES, Loss
from pipeline.losses._shared.registry import loss_record

PAIRS = {"34>18": R34_R18, "50>MBv1": R50_MBV1}
_FIGURE = re.compile(r"(\d+\.\d+)(?: \(([^)]*)\))?")


def reads(loss: Loss) -> str:
    """What a method reads of its teacher, all four stages as one."""
    names = tuple(sorted(loss.needs.teacher))
    for suffix in ("", ".pre"):
        stages = {f"{stage}{suffix}" for stage in STAGES}
        if stages <= set(names):
            names = (*(name for name in names if name not in stages), f"stage1-4{suffix}")
    return ", ".join(names) or "-"


def store(loss: Loss) -> str:
    """The kinds of store that suffice, cheapest first."""
    return (", ".join(loss.stores) or "online only") if loss.needs.teacher else "-"


def top1(text: str) -> str:
    """The first figure of a published text, which is that of the method's own authors where they give one.

    ~ marks one that nobody looked up; what the same source gives without the method stands after it.
    """
    figure = _FIGURE.search(text)
    if figure is None:
        return "-"
    source, _, beside = (figure[2] or "").partition("; ")
    without = re.fullmatch(r"\w+ \d+\.\d+", beside)
    return f"{'~' * ('unchecked' in source)}{figure[1]}{f' ({beside})' if without else ''}"


def published(loss: Loss) -> list[str]:
    """Every published figure with its source, one line a pair and setting."""
    told = {"": loss.published, **{f", with {how}": texts for how, texts in loss.published_with.items()}}
    return [f"{pair}{how}: {text}" for how, texts in told.items() for pair, text in texts.items()]


def markdown(names: Sequence[str]) -> str:
    """docs/methods.md's table of these methods."""
    heads = ("method", "reads of teacher", "store that suffices", "top-1, ResNet-18", "top-1, MobileNetV1")
    rows = [heads, tuple("---" for _ in heads), *(_row(loss_record(name, {})) for name in names)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(loss: Loss) -> tuple[str, ...]:
    return (f"`{loss.name}`", reads(loss), store(loss), _cell(loss, (R34_R18, R50_R18)), _cell(loss, (R50_MBV1,)))


def _cell(loss: Loss, pairs: tuple[Pair, ...]) -> str:
    """The first figure of each pair and setting; pairs after the first say who teaches."""
    told = []
    for pair in pairs:
        teacher = "" if pair is pairs[0] else f" (teacher {str(pair).partition(' ')[0]})"
        if pair in loss.published:
            told.append(f"{top1(loss.published[pair])}{teacher}")
        told += [f"with {how} {top1(texts[pair])}" for how, texts in loss.published_with.items() if pair in texts]
    return "; ".join(told) or "-"
