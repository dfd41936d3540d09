"""Runs in processes of their own, and whether two of them are the same run bit for bit."""

import json
import subprocess
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.processes import end_tree, last_line, start_python
from pipeline.config import RunConfig
from pipeline.core.errors import RefluxError
from pipeline.jobs.checkpoint import find_latest

_TORCHRUN = ("-m", "torch.distributed.run", "--standalone")


class Job:
    """A run that has been started; its output goes beside its folder.

    Args:
        config: of the run; `config.files.out` is its folder, which is gone on with where it exists.
        ranks: processes; more than one by torchrun.
    """

    def __init__(self, config: RunConfig, *, ranks: int = 1) -> None:
        run = config.files.out
        self.config, self._log = config, run.with_name(f"{run.name}.log")
        written = run.with_name(f"{run.name}.json")
        written.write_text(json.dumps(config.to_json()))
        launcher = (*_TORCHRUN, f"--nproc_per_node={ranks}") if ranks > 1 else ()
        self._process = start_python([*launcher, "-m", "benchmarks.gpu.train", str(written)], self._log)

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait(self, limit_s: float) -> None:
        """Until it has ended well.

        Raises:
            RefluxError: it ended otherwise, or not in time; with the last line that it printed.
        """
        try:
            code = self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RefluxError(f"{self._name} still ran after {limit_s:.0f} s: {self._said()}") from None
        if code != 0:
            raise RefluxError(f"{self._name} ended with exit code {code}: {self._said()}")

    def kill(self) -> None:
        """End all of its processes at once, as a crash of the machine would."""
        end_tree(self._process)

    @property
    def _name(self) -> str:
        return f"run '{self.config.files.out.name}'"

    def _said(self) -> str:
        return last_line(self._log.read_text(errors="replace"))


def run_all(jobs: list[Job], limit_s: float) -> None:
    """Wait for jobs that run beside each other; none is left where one has failed."""
    try:
        for job in jobs:
            job.wait(limit_s)
    finally:
        for job in jobs:
            job.kill()


def state_of(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a run's last checkpoint, by its path: weights, BatchNorm's statistics, momenta.

    Raises:
        RefluxError: it has none.
    """
    state, _ = find_latest(run)
    if state is None:
        raise RefluxError(f"run '{run.name}' has left no checkpoint")
    parts = {name: state[name] for name in ("module", "optimizer", "statistics")}
    return dict(_tensors(parts, ""))


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """Paths of tensors that are not bit for bit the same in both."""
    return sorted(
        name
        for name in one.keys() | other.keys()
        if name not in one or name not in other or not torch.equal(one[name], other[name])
    )


def _tensors(value: Any, path: str) -> list[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        return [(path, value)]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [pair for name, part in items for pair in _tensors(part, f"{path}/{name}")]
