"""What the suite runs: a method with one value of every setting that changes what a step does on the device."""

import functools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from method_cases import CASES

from launch.imagenet import parse_config
from null_device import cover
from pipeline.config import RunConfig
from pipeline.losses._shared.record import Loss
from pipeline.losses._shared.registry import loss_record
from stores.codec_registry import codec_ids, parse_codecs

WARM_UP = 4  # steps after which cuDNN has chosen, torch's pools are filled and Triton has compiled
STEPS = WARM_UP + 5
_STOP_AT = 3  # of a run that is started again
TEACHER = "demo_teacher@random"
# an epoch is longer than a run: its end saves a checkpoint, which may wait
VIEWS = ("--backend", "synthetic", "--synthetic-samples", "512", "--synthetic-classes", "24", "--resolution", "64")

METHODS = {str(case): case for case in CASES}  # the registry's, and variants that run other code

Teacher = Literal["none", "stored", "online", "graph"]


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        method: a name of `METHODS`.
        teacher: where its outputs come from; "graph" is online, in a CUDA graph.
        amp: of the student.
        optimizer: name of the flag's value.
        micro_batches: of a step; on two ranks, of each rank.
        ema: with an average.
        clip: with a bound on the gradient.
        resume: started again after a few steps.
        late: on a device that is as late as it may be.
        ranks: processes.
        compile: student and teacher compiled.
    """

    method: str
    teacher: Teacher
    amp: Literal["fp16", "bf16", "off"] = "fp16"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    micro_batches: int = 1
    ema: bool = False
    clip: bool = False
    resume: bool = False
    late: bool = False
    ranks: int = 1
    compile: bool = False

    def __str__(self) -> str:
        return "-".join(name for name in self._words() if name)

    def _words(self) -> Iterator[str]:
        yield from (self.method, self.teacher, self.amp, self.optimizer)
        yield "accumulated" * (self.micro_batches > 1)
        yield from (name for name in ("ema", "clip", "resume", "late", "compile") if getattr(self, name))
        yield "ranks" * (self.ranks > 1)

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)


def factors() -> dict[str, list[Any]]:
    """The values of every setting, cheap ones first."""
    return {
        "method": list(METHODS),
        "teacher": ["none", "online", "stored", "graph"],
        "amp": ["fp16", "bf16", "off"],
        "optimizer": ["sgd", "adamw"],
        "micro_batches": [1, 2],
        "ema": [False, True],
        "clip": [False, True],
        "resume": [False, True],
        "late": [True, False],
        "ranks": [1, 2],
    }


def is_allowed(row: cover.Row) -> bool:
    """Whether a method can have the teacher, and is one to run on two ranks; all else goes together."""
    method = row.get("method")
    if method is None:
        return True
    return row.get("teacher", "any") in (*_teachers_of(method), "any") and _ranks_of(method) >= row.get("ranks", 1)


def pairwise_cases() -> list[Case]:
    """Few cases in which every two settings meet."""
    return [Case(**row) for row in cover.pairwise(factors(), is_allowed)]


def all_cases() -> list[Case]:
    """Every case: an hour or two."""
    return [Case(**row) for row in cover.full(factors(), is_allowed)]


def commands(case: Case, folder: Path, stores: Path) -> Iterator[RunConfig]:
    """The runs of the case, one after the other in one folder: two where it is resumed. The last takes STEPS steps."""
    for stop in (_STOP_AT, _STOP_AT + STEPS) if case.resume else (STEPS,):
        yield _config(case, [*_flags(case, stores), "--out", str(folder), "--max-steps", str(stop)])


def _config(case: Case, flags: list[str]) -> RunConfig:
    """Of the command line, with the method in place of the recipe's."""
    method, teacher = METHODS[case.method], None if case.teacher == "none" else TEACHER
    config = parse_config(["smoke", *flags])
    return replace(config, method=method.method, method_args=method.all_arguments, teacher=teacher)


def _flags(case: Case, stores: Path) -> list[str]:
    batch, parts = 8 * case.micro_batches * case.ranks, case.micro_batches * case.ranks
    words = ["--device", "cuda", *VIEWS, "--batch", str(batch), "--micro-batches", str(parts), "--amp", case.amp]
    words += ["--optimizer", case.optimizer, "--eval-batch", "48", "--threads", "1", "--log-every", "1"]
    words += ["--ema-decay", "0.99"] * case.ema + ["--clip-norm", "1"] * case.clip + ["--compile"] * case.compile
    if case.teacher == "stored":
        words += ["--store", str(stores / codec_of(case)), "--teacher-source", "stored"]
    return words + ["--cuda-graphs", "teacher"] * (case.teacher == "graph")


def _teachers_of(method: str) -> tuple[str, ...]:
    needs = _loss(method).needs
    if not needs.teacher:
        return ("none",)
    graph = ("graph",) if needs.teacher_mode == "eval" else ()
    return ("online", *(("stored",) if _codecs_of(method) else ()), *graph)


def _ranks_of(method: str) -> int:
    """Ranks see parameters and banks, which a method's variants do not change."""
    return 2 if METHODS[method].arguments == {} else 1


@functools.cache
def _loss(method: str) -> Loss:
    return loss_record(METHODS[method].method, METHODS[method].all_arguments)


@functools.cache
def _codecs_of(method: str) -> tuple[str, ...]:
    return tuple(name for name in codec_ids() if _serves(name, _loss(method)))


def _serves(codec_id: str, loss: Loss) -> bool:
    """Whether a store that keeps this codec alone, with its usual k, has what the method reads."""
    (codec,) = parse_codecs(codec_id, num_classes=1000, embedding_dim=8)
    if codec.source == "embedding":
        return "embedding" in loss.stores
    if codec.exact_support:
        return "dense" in loss.stores
    return "topk" in loss.stores and loss.refuses_topk(int(codec.to_json()["k"])) is None


def codec_of(case: Case) -> str:
    """A codec that serves the method: now this, now that one."""
    codecs = _codecs_of(case.method)
    turn = list(METHODS).index(case.method) + ("fp16", "bf16", "off").index(case.amp) + 3 * case.ema
    return codecs[turn % len(codecs)]
