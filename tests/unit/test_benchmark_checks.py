"""Does a benchmark refuse what it cannot measure before it measures, in one message?"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks._shared.benchmark import class_folders
from pipeline.core.command import run_command
from pipeline.core.errors import DataError


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command line in this process; gives exit code, stdout and stderr."""

    def run_here(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            run_command(main)
        said = capfd.readouterr()
        return end.value.code, said.out, said.err  # type: ignore[return-value]

    return run_here


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("kernels --device cuda", "--device cuda needs a CUDA device"),
        ("gpu --quick", "`python -m benchmarks gpu` needs a CUDA device"),
    ],
)
def test_cuda_where_there_is_none_is_refused(
    line: str, words: str, run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, out, err = run(*line.split())
    assert (code, out) == (2, "")
    assert words in err


def test_what_precompute_refuses_is_no_traceback_of_the_benchmark(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "empty" / "class").mkdir(parents=True)
    code, _, err = run("epoch", "--data", tmp_path / "empty")
    assert code == 1
    assert "holds no image" in err
    assert err.splitlines()[-1].startswith("error: the store that is to be compared could not be filled")
    assert "Traceback" not in err


def test_of_a_folder_with_train_and_val_train_is_taken_and_said(
    photo_folder: Path, val_folder: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    shutil.copytree(photo_folder, tmp_path / "data" / "train")
    shutil.copytree(val_folder, tmp_path / "data" / "val")
    (tmp_path / "data" / "train.index.h5").touch()
    small = ["--teacher", "demo_teacher@random", "--rows", 8, "--resolution", 32, "--json", tmp_path / "x.json"]
    code, out, err = run("codecs", "--data", tmp_path / "data", *small)
    assert (code, err) == (0, "")
    assert f"taking {tmp_path / 'data' / 'train'}" in out
    report = json.loads((tmp_path / "x.json").read_text())
    assert (report["num_classes"], report["settings"]["data"]) == (4, "data/train")


def test_classes_that_are_called_train_or_val_stay_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "val", "bus"):
        (tmp_path / "vehicles" / name).mkdir(parents=True)
    assert class_folders(tmp_path / "vehicles") == tmp_path / "vehicles"
    (tmp_path / "two" / "train").mkdir(parents=True)
    (tmp_path / "two" / "val").mkdir()
    (tmp_path / "two" / "train" / "0.jpg").touch()
    assert class_folders(tmp_path / "two") == tmp_path / "two", "images, no folders of classes"
    assert capsys.readouterr().out == ""
    with pytest.raises(DataError, match="no such folder"):
        class_folders(tmp_path / "none")
