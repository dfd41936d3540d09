"""Run a teacher once over augmentation views of a data set, and keep its outputs in a store for any number of students.

python -m precompute --data DIR --teacher NAME@WEIGHTS --store DIR --views 0:50 [flags]

torchrun --nproc_per_node=8 -m precompute --data DIR --teacher resnet34@IMAGENET1K_V1 --store DIR --views 0:50

python -m precompute plan --data DIR --teacher NAME@WEIGHTS --views 0:50 [--epochs 100]

python -m precompute audit STORE --data DIR --teacher NAME@WEIGHTS [--rows 64]

The same command again goes on, with any number of ranks. `plan` says what it would cost, and writes nothing; `audit`
computes rows of a store again and compares them.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from pipeline.core.command import Outcome, run_command, speaks
from precompute.config import AuditConfig, PlanConfig, PrecomputeConfig

_Store = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STORE", help="folder of the store.")]
_Config = PrecomputeConfig | PlanConfig | tuple[Path, AuditConfig]


def parse_config(arguments: Sequence[str]) -> _Config:
    """What a command line (without the program's name) asks for.

    Raises:
        SystemExit: after --help (0) or a wrong flag (2).
    """
    if arguments[:1] == ["plan"]:
        return _parse(PlanConfig, arguments[1:], "python -m precompute plan")
    if arguments[:1] == ["audit"]:
        return _parse(_store_and_config, arguments[1:], "python -m precompute audit")
    return _parse(PrecomputeConfig, arguments, "python -m precompute", __doc__)


def main() -> Outcome:
    """Parse, run, and say how it ended: "done", or "preempted" (run me again)."""
    config = parse_config(sys.argv[1:])
    if isinstance(config, PrecomputeConfig):
        from precompute.fill import precompute  # torch: only when something is to be computed

        return precompute(config)
    if isinstance(config, PlanConfig):
        from precompute.plan import show_plan

        show_plan(config)
    else:
        from precompute.audit import audit

        audit(*config)
    return "done"


def _store_and_config(store: _Store, config: AuditConfig) -> tuple[Path, AuditConfig]:
    return store, config


def _parse(
    kind: Callable[..., _Config], arguments: Sequence[str], prog: str, description: str | None = None
) -> _Config:
    settings: dict[str, Any] = {"use_underscores": False, "console_outputs": speaks()}
    parsed: _Config = tyro.cli(
        kind,
        prog=prog,
        description=description,
        args=list(arguments),
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.HelptextFromCommentsOff),
        **settings,
    )
    return parsed


if __name__ == "__main__":
    run_command(main)
