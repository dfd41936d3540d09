"""Measure what this project claims. Each figure comes from pairs measured in turn; tables for people, JSON for records.

python -m benchmarks NAME [--json FILE] [flags]

python -m benchmarks NAME --help
"""

import sys

import tyro

import benchmarks
from benchmarks._shared.benchmark import Benchmark, perform
from benchmarks._shared.source import first_line_of
from pipeline.core import parts
from pipeline.core.command import run_command
from pipeline.core.errors import ConfigError

_PROGRAM = "python -m benchmarks"


def main() -> None:
    """Run the benchmark that the command line names; its module alone is imported."""
    name, *arguments = sys.argv[1:] or [""]
    known = parts.names(benchmarks)
    if name in ("-h", "--help"):
        print(_overview(known))
    elif not name:
        raise ConfigError(f"name a benchmark: {', '.join(known)}.\n`{_PROGRAM} --help` says what each measures.")
    else:
        kind = parts.class_of(parts.load(benchmarks, "benchmark", name), Benchmark)
        config = (tyro.conf.HelptextFromCommentsOff,)
        perform(tyro.cli(kind, prog=f"{_PROGRAM} {name}", args=arguments, config=config))


def _overview(names: list[str]) -> str:
    width = max(map(len, names))
    return "\n".join([__doc__ or "", *(f"  {name:{width}}  {first_line_of(f'benchmarks.{name}')}" for name in names)])


if __name__ == "__main__":
    run_command(main)
