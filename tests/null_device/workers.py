"""A worker from outside: the process that a session of tests, or a command, sends its jobs to."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from null_device.cases import Case
from null_device.device import REPOSITORY, environment
from stores.codec_registry import codec_ids


class Worker:
    """A process that runs jobs on two null devices, see worker.py; a context manager.

    Args:
        folder: for its log, and for all that its jobs write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._num_jobs = folder, 0
        self._log = (folder / "worker.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "null_device.worker"],
            env={**os.environ, **environment(gpus=2)},
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()
        self._log.close()

    def run(self, job: str, arguments: Sequence[Any], *, ranks: int = 1, num_ports: int = 1) -> Any:
        """What `job` returns on rank 0.

        Raises:
            AssertionError: it failed, with what it printed.
        """
        self._num_jobs += 1
        folder = str(self.folder / f"{job}-{self._num_jobs}")
        request = {"job": job, "arguments": list(arguments), "folder": folder, "ranks": ranks, "num_ports": num_ports}
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        reply = stdout.readline()
        assert reply, f"the worker has ended\n{(self.folder / 'worker.log').read_text()[-4000:]}"
        answer: dict[str, Any] = json.loads(reply)
        assert "error" not in answer, answer["error"]
        return answer["value"]


def train(worker: Worker, cases: Sequence[Case], stores: Path) -> dict[Case, Any]:
    """Results of cases on as many ranks, run in one process a rank; `stores` holds a store for each codec.

    Raises:
        AssertionError: a rank died, or one of several ranks failed.
    """
    arguments = [[case.to_json() for case in cases], str(stores)]
    found = worker.run("train", arguments, ranks=cases[0].ranks, num_ports=len(cases))
    return dict(zip(cases, found, strict=True))


def fill_stores(worker: Worker) -> Path:
    """A folder with a store for each codec, precomputed on the null device."""
    folder = worker.folder / "stores"
    worker.run("fill", [codec_ids(), str(folder), []], num_ports=len(codec_ids()))
    return folder
