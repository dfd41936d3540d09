"""Operations of a steady step with the real networks of published pairs, fp16, no average: in a worker.

Batch and classes do not change what a step launches. The images' size does, where a loss pools maps to fixed sizes.
"""

from pathlib import Path

from launch.imagenet import parse_config
from null_device.cases import WARM_UP
from null_device.device import Counts, operations
from null_device.steps import counted_calls
from pipeline.config import RunConfig
from pipeline.engine.step import TrainStep
from pipeline.fit import fit

_STEPS = WARM_UP + 3
_SMALL = ["--device", "cuda", "--backend", "synthetic", "--synthetic-samples", "256", "--synthetic-classes", "10"]
_SMALL += ["--batch", "8", "--eval-batch", "256", "--threads", "1", "--amp", "fp16", "--max-steps", str(_STEPS)]


def steady_step(recipe: str, flags: list[str], folder: Path) -> Counts:
    """Counts of a steady step's call in a run of `recipe`, and their sum, "operations".

    Raises:
        AssertionError: the steady steps are not alike.
    """
    with counted_calls(TrainStep) as steps:
        assert fit(_config([recipe, *_SMALL, "--out", str(folder), *flags])) == "done"
    steady = [{**step.call, "event_queries": 0} for step in steps[WARM_UP:]]
    assert all(call == steady[0] for call in steady), steady
    return {"operations": operations(steady[0]), **{name: number for name, number in steady[0].items() if number}}


def _config(words: list[str]) -> RunConfig:
    """Of a command line; the recipe's teacher is untrained."""
    teacher = parse_config(words).teacher
    untrained = [] if teacher is None else ["--teacher", f"{teacher.partition('@')[0]}@random"]
    return parse_config([*words, *untrained])
