"""prepare.py as a person uses it: files it writes, what it refuses, how it ends."""

import resource
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from launch import prepare
from pipeline.core.command import format_bytes, run_command
from pipeline.core.errors import ConfigError, DataError, RefluxError
from pipeline.data.index import Index, load_index

PREPARE = Path(prepare.__file__)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in range(12):
        split, label = ("train", "val")[number // 6], number % 2
        path = tmp_path / "data" / split / f"class{label}" / f"{number % 6 // 2:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + number, 30 + number), (number, 9, 99)).save(path)
    return tmp_path / "data"


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(PREPARE), *[str(argument) for argument in arguments]]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def ends_with(main: Callable[[], None]) -> int:
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_index_writes_both_files_and_a_table(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.index(data=data)
    train, val = (load_index(data / f"{split}.index.h5") for split in ("train", "val"))
    assert (len(train), len(val)) == (6, 6)
    assert train.root == (data / "train").resolve()
    shown = capsys.readouterr().out
    for text in ("class", "median px", train.fingerprint[:12], val.fingerprint[:12], "train.index.h5: written"):
        assert text in shown


def test_the_same_index_again_is_left_alone(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.index(data=data)
    before = (data / "train.index.h5").stat().st_mtime_ns
    prepare.index(data=data)
    assert (data / "train.index.h5").stat().st_mtime_ns == before
    assert "there already, identical" in capsys.readouterr().out


def test_an_index_that_differs_is_overwritten_only_with_force(data: Path) -> None:
    prepare.index(data=data)
    old = load_index(data / "train.index.h5").fingerprint
    (data / "train" / "class0" / "000.jpg").unlink()
    with pytest.raises(DataError, match=r"train\.index\.h5 exists and differs(.|\n)*6 images(.|\n)*5 images"):
        prepare.index(data=data)
    assert load_index(data / "train.index.h5").fingerprint == old
    prepare.index(data=data, force=True)
    assert len(load_index(data / "train.index.h5")) == 5


def test_folders_apart_and_out(data: Path, tmp_path: Path) -> None:
    prepare.index(train_dir=data / "train", val_dir=data / "val", out=tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["train.index.h5", "val.index.h5"]


def test_bad_files_are_refused_or_left_out_by_name(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "train" / "class1" / "zero[1].jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"class1/zero\[1\]\.jpg: the file is empty"):
        prepare.index(data=data)
    assert not list(data.glob("*.h5"))
    prepare.index(data=data, bad="skip")
    assert "left out of train: class1/zero[1].jpg: the file is empty" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.ffcv(out=tmp_path / "a.beton", folder=data / "val", dry_run=True)
    assert "would hold 6 images in about" in capsys.readouterr().out
    assert not (tmp_path / "a.beton").exists()


@pytest.mark.skipif(find_spec("ffcv") is None, reason="FFCV is not installed: see `make setup`")
def test_ffcv_writes_the_file_from_the_index(data: Path, tmp_path: Path) -> None:
    prepare.index(data=data)
    out = tmp_path / "val.beton"
    out.write_text("an old one")
    answer = run("ffcv", "--data", data, "--split", "val", "--out", out, "--encoding", "raw", "--force")
    assert answer.returncode == 0, answer.stderr
    assert "ffcv: 6 of 6 images" in answer.stdout
    assert out.stat().st_size > 6 * 30 * 40 * 3
    assert "Traceback" not in answer.stderr


def test_the_estimate_of_raw_pixels_is_exact(photo_index: Index) -> None:
    exact = int((photo_index.widths * photo_index.heights * 3).sum())
    assert prepare.estimate_beton_bytes(photo_index, encoding="raw", max_side=500, quality=90) == exact
    halved = prepare.estimate_beton_bytes(photo_index, encoding="raw", max_side=24, quality=90)
    assert halved < exact / 4
    assert prepare.estimate_beton_bytes(photo_index, encoding="jpeg", max_side=500, quality=90) == int(
        photo_index.sizes.sum()
    )


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2.56e9, "2.6 GB"), (1.5e12, "1.50 TB")]
)
def test_sizes_are_readable(size: float, text: str) -> None:
    assert format_bytes(size, 1) == text


def test_help_is_quick_and_imports_no_torch() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    answer = run("--help")
    assert answer.returncode == 0, answer.stderr
    assert all(name in answer.stdout for name in ("index", "ffcv", "demo"))
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 2  # seconds; the wall clock is others' too
    probe = "import sys, launch.prepare; print(sorted({'torch', 'ffcv', 'numba'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=100)
    assert loaded.stdout.strip() == "[]"


def test_demo_draws_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.demo(tmp_path / "images", train_per_class=1, val_per_class=1)
    assert "drawn in" in capsys.readouterr().out
    prepare.demo(tmp_path / "images", train_per_class=1, val_per_class=1)
    assert "there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("no [such] flag"), 2, "error: no [such] flag\n"),
        (RefluxError("a" * 300), 1, "error: " + "a" * 300 + "\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)
def test_errors_become_messages_and_codes(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error

    assert ends_with(main) == code
    assert capsys.readouterr().err == said


def test_a_good_end_is_zero_and_a_defect_keeps_its_traceback() -> None:
    def defect() -> None:
        raise ZeroDivisionError

    assert ends_with(lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        run_command(defect)
