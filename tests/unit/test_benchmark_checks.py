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
        ("loader --data PHOTOS --backends dalli", "unknown backend to measure 'dalli'. Did you mean 'dali'?"),
        ("loader --data PHOTOS --repeats 0", "--repeats must be above 0, got 0"),
        ("loader --data PHOTOS --backends torchvision --batch 73", "at most the 72 images"),
        ("loader --data PHOTOS --work /no/such", "--work /no/such must be a folder that exists"),
        ("precompute --data PHOTOS --images 0", "--images must be above 0, got 0"),
        ("precompute --data PHOTOS --work /no/such", "--work /no/such must be a folder that exists"),
        ("codecs --data PHOTOS --teacher resnet81@random", "unknown model 'resnet81'"),
        ("codecs --data PHOTOS --teacher resnet18@V7", "unknown weights of resnet18 'V7'"),
        ("codecs --data PHOTOS --teacher resnet18@random --policy x", "unknown policy 'x'"),
        ("codecs --data PHOTOS --teacher resnet18@random --png THERE", "exists; nothing is overwritten"),
        ("codecs --data PHOTOS --teacher resnet18@random --png /no/such/x.png", "/no/such does not: make it first"),
        ("store --work /no/such", "--work /no/such must be a folder that exists"),
        ("store --rows 100 --batch 256", "--rows must be 256 or more, got 100"),
        ("store --json THERE", "exists; nothing is overwritten"),
        ("kernels --device gpu", "cpu"),
        ("kernels --batches 0", "--batches must be above 0, got 0"),
        ("kernels --batches 64 -1", "--batches must be above 0, got 64 -1"),
        ("kernels --batches", "--batches names nothing to measure"),
        ("kernels --losses", "--losses names nothing to measure"),
        ("kernels --classes 1", "--classes must be 2 or more, got 1"),
        ("kernels --repeats 0", "--repeats must be above 0, got 0"),
        ("kernels --losses kdd", "unknown loss to measure 'kdd'. Did you mean 'dkd'?"),
        ("kernels --rivals ligre", "unknown rival to measure 'ligre'. Did you mean 'liger'?"),
        ("kernels --json /no/such/x.json", "--json /no/such/x.json must lie in a folder that exists"),
        ("epoch --data PHOTOS --rounds 0", "--rounds must be above 0, got 0"),
        ("epoch --data PHOTOS --seconds 0", "--seconds must be above 0, got 0.0"),
        ("epoch --data PHOTOS --teacher resnet81@random", "unknown model 'resnet81'"),
        ("epoch --data PHOTOS --backend dalii", "unknown backend 'dalii'"),
        ("epoch --data PHOTOS --student demo", "unknown model 'demo'"),
        ("step --methods kdd", "unknown method 'kdd'"),
        ("step --steps 0", "--steps must be above 0, got 0"),
        ("epoch --data PHOTOS --seconds inf", "--seconds must be finite and above 0, got inf"),
        ("kernel --repeats 1", "unknown benchmark 'kernel'. Did you mean 'kernels'?"),
        ("", "name a benchmark: codecs, epoch, gpu, "),
        ("gpu --sections stak", "unknown section 'stak'. Did you mean 'stack'?"),
        ("gpu --minutes 0", "--minutes must be above 0, got 0.0"),
        ("gpu --json THERE", "exists; nothing is overwritten"),
    ],
)
def test_wrong_flags_end_with_2_before_anything_is_measured(
    line: str, words: str, run: Callable[..., tuple[int, str, str]], photo_folder: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    code, out, err = run(*line.replace("PHOTOS", str(photo_folder)).replace("THERE", str(there)).split())
    assert (code, out) == (2, "")
    assert words in err
    assert there.read_text() == "mine"
    assert not Path("/no/such").exists()


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


@pytest.mark.parametrize("command", ["loader", "precompute", "epoch", "codecs --teacher resnet18@random"])
def test_data_that_is_not_there_is_one_message(command: str, run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = run(*command.split(), "--data", "/no/such")
    assert (code, out) == (1, "")
    assert err.startswith("error: no such folder: /no/such")


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
