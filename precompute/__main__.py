"""Run a teacher once over augmentation views of a data set, and keep its outputs in a store for any number of students.

python -m precompute --data DIR --teacher NAME@WEIGHTS --store DIR --views 0:50 [flags]

torchrun --nproc_per_node=8 -m precompute --data DIR --teacher resnet34@IMAGENET1K_V1 --store DIR --views 0:50

python -m precompute plan --data DIR --teacher NAME@WEIGHTS --views 0:50 [--epochs 100]

The same command again goes on, with any number of ranks. `plan` says what it would cost, and writes nothing.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from pipeline.core.command import run_command
from pipeline.core.errors import ConfigError, PeerError
from precompute.config import PlanConfig, PrecomputeConfig

EXIT_PREEMPTED = 75
_Parsed = TypeVar("_Parsed", PrecomputeConfig, PlanConfig)


def parse_config(arguments: Sequence[str]) -> PrecomputeConfig | PlanConfig:
    """What a command line (without the program's name) asks for.

    Raises:
        SystemExit: after --help (0) or a wrong flag (2).
    """
    if arguments[:1] == ["plan"]:
        return _parse(PlanConfig, arguments[1:], "python -m precompute plan", PlanConfig.__doc__)
    return _parse(PrecomputeConfig, arguments, "python -m precompute", __doc__)


def main() -> None:
    """Parse, run, and end with 0 (done), 1 (failed), 2 (usage) or 75 (stopped early: run me again)."""
    config = parse_config(sys.argv[1:])
    try:
        outcome = _run(config)
    except PeerError as error:
        sys.exit(error.exit_code)
    except ConfigError as error:
        if not _speaks():
            sys.exit(error.exit_code)
        raise
    if outcome == "preempted":
        sys.exit(EXIT_PREEMPTED)


def _run(config: PrecomputeConfig | PlanConfig) -> str:
    if isinstance(config, PlanConfig):
        from precompute.plan import show_plan  # torch: only when something is to be computed

        show_plan(config)
        return "done"
    from precompute.fill import precompute

    return precompute(config)


def _parse(kind: type[_Parsed], arguments: Sequence[str], prog: str, description: str | None) -> _Parsed:
    settings: dict[str, Any] = {"use_underscores": False, "console_outputs": _speaks()}
    parsed: _Parsed = tyro.cli(
        kind,
        prog=prog,
        description=description,
        args=list(arguments),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff),
        **settings,
    )
    return parsed


def _speaks() -> bool:
    """Whether this rank is the one that says what every rank finds in the command line."""
    return os.environ.get("RANK", "0") == "0"


if __name__ == "__main__":
    run_command(main)
