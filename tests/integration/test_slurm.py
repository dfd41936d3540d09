"""`launch/slurm.sbatch`: what becomes of a job is what this attempt said of the run, not what an earlier one did."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent.parent / "launch" / "slurm.sbatch"
_SRUN = """#!/usr/bin/env bash
echo "srun $*" >>"$CALLS"
[ -z "$SAYS" ] || { mkdir -p "$RUN"; printf '{"state": "%s", "time": 2.5}' "$SAYS" >"$RUN/state.json"; }
exit "$CODE"
"""
_SCONTROL = """#!/usr/bin/env bash
[ "$1" = show ] && echo node1 || echo "scontrol $*" >>"$CALLS"
"""


def batch(folder: Path, *flags: str, says: str, code: int, **job: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run the script with an srun that writes `says` into state.json and ends with `code`; what it called, too."""
    for name, text in (("srun", _SRUN), ("scontrol", _SCONTROL)):
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    calls = folder / "calls"
    calls.write_text("")
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", **job}
    own = {"CALLS": str(calls), "RUN": str(folder / "run"), "SAYS": says, "CODE": str(code)}
    environment = {**os.environ, **job, **own, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    line = ["bash", str(SCRIPT), "smoke", *flags]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False), calls.read_text()


@pytest.fixture(params=["--out RUN", "--out=RUN"])
def flags(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    return [*request.param.replace("RUN", str(tmp_path / "run")).split(), "--lr", "0.1"]


@pytest.mark.parametrize("before", [None, "preempted", "done"])
@pytest.mark.parametrize(
    ("says", "code", "expected", "requeued"),
    [
        ("done", 0, 0, False),
        ("preempted", 1, 0, True),
        ("failed", 1, 1, False),
        ("usage", 2, 2, False),
        ("running", 0, 1, False),
        ("", 9, 9, False),
        ("", 0, 1, False),
    ],
)
def test_the_word_of_this_attempt_counts(
    tmp_path: Path, flags: list[str], before: str | None, says: str, code: int, expected: int, requeued: bool
) -> None:
    if before is not None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "state.json").write_text(json.dumps({"state": before, "time": 1.5}))
    ended, calls = batch(tmp_path, *flags, says=says, code=code)
    assert ended.returncode == expected, ended.stderr
    assert ("scontrol requeue 7" in calls) == requeued
    assert " ".join(["launch/imagenet.py smoke", *flags]) in calls
    if not says:
        assert "this attempt ended before it wrote" in ended.stderr


def test_no_run_named(tmp_path: Path) -> None:
    ended, calls = batch(tmp_path, "--lr", "0.1", says="done", code=0)
    assert (ended.returncode, ended.stderr, calls) == (2, "give --out RUN\n", "")


def test_ranks_are_bound_to_the_cores_beside_their_gpus(tmp_path: Path) -> None:
    flags, gpus = ["--out", str(tmp_path / "run")], {"SLURM_GPUS_ON_NODE": "8"}
    _, without_numactl = batch(tmp_path, *flags, says="done", code=0, **gpus)
    (tmp_path / "bin" / "numactl").write_text("#!/usr/bin/env bash\n")
    (tmp_path / "bin" / "numactl").chmod(0o755)
    _, on_cpus = batch(tmp_path, *flags, says="done", code=0)
    _, on_gpus = batch(tmp_path, *flags, says="done", code=0, **gpus)
    _, unbound = batch(tmp_path, *flags, says="done", code=0, **gpus, NUMA_BINDING="")
    assert "--numa-binding=node" in on_gpus, "torch has it since 2.9"
    assert "--numa-binding" not in on_cpus + unbound
    if shutil.which("numactl") is None:
        assert "--numa-binding" not in without_numactl, "torchrun would end with an error"
