"""Where Triton lacks what it compiles its launcher with, do losses take their torch form, with one warning?"""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

pytest.importorskip("triton")

from triton.runtime.build import compile_module_from_src

from pipeline.kernels.dispatch import attempt

REMEDY = "apt-get install gcc python3-dev"


def losses_with(tmp_path: Path, **variables: str) -> dict[str, Any]:
    """What `triton_lacking` finds with no compiler on the path, an empty cache of Triton's, and these variables."""
    (tmp_path / "bin").mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("CC", "LOCAL_RANK")}
    environment |= {"PATH": str(tmp_path / "bin"), "TRITON_CACHE_DIR": str(tmp_path / "cache"), **variables}
    command = [sys.executable, "-m", "tests.unit.kernels.triton_lacking"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("variables", "named"),
    [({}, "compiler"), ({"CC": shutil.which("false") or "false"}, "returned non-zero exit status 1")],
    ids=["no compiler", "a compiler that finds no header"],
)
def test_without_a_compiler_losses_take_their_torch_form_with_one_warning(
    variables: dict[str, str], named: str, tmp_path: Path
) -> None:
    found = losses_with(tmp_path, **variables)
    assert found["launched"] == 0
    assert len(found["said"]) == 1, "eight calls, one warning"
    assert max(found["errors"], default=0) < 1e-4
    assert not found["builds"]
    assert named in found["refused"][0]
    assert all(REMEDY in warning for warning in found["said"] + found["refused"])


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing: nothing is built")
def test_with_a_compiler_the_same_step_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit.kernels.triton_lacking import HELPER

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert attempt(lambda: compile_module_from_src(HELPER, "helper"))


def test_the_first_rank_of_a_machine_warns_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError: .*\n.*" + REMEDY):
        assert not attempt(lambda: 1 / 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not attempt(lambda: 1 / 0)
