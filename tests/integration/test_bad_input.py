"""Bad input gets one message that names file or field, exit code 1 or 2, no traceback; nothing is overwritten.

The tables are in `bad_input`; a line is run in this process, as the program runs it.
"""

import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from bad_input import AGAIN, BENCHMARKS, BREAKS, FILL, IMAGENET, IMAGES, NEW, ON, PRECOMPUTE, PREPARE, STORES, Row
from jobs import (
    REPOSITORY,
    CommandJob,
    bytes_of,
    check_said,
    cut_after_indexing,
    flip_byte,
    running,
    state_of,
    teacher_of_classes,
)
from precompute_jobs import write_teacher
from recorded import fill, train

from benchmarks import __main__ as benchmarks
from launch import imagenet, prepare
from pipeline.core.command import run_command
from precompute import __main__ as precompute
from stores import __main__ as stores

Program = Callable[[], None]


@dataclass(frozen=True)
class Place:
    """The files of one test.

    Attributes:
        folder: everything that a line must leave as it is.
        new: what a line may make.
        names: the paths that a line's capitals stand for.
    """

    folder: Path
    new: Path
    names: dict[str, Path]

    def filled(self, text: str) -> str:
        for name, path in self.names.items():
            text = text.replace(name, str(path))
        return text


def _spoil_image(content: Callable[[bytes], bytes]) -> Callable[[Place], None]:
    def spoil(place: Place) -> None:
        file = place.names["DATA"] / "train" / "class1" / "003.jpg"
        file.write_bytes(content(file.read_bytes()))

    return spoil


def _empty_val(place: Place) -> None:
    shutil.rmtree(place.names["DATA"] / "val")
    (place.names["DATA"] / "val").mkdir()


def _change_config(place: Place, **fields: int) -> None:
    file = place.names["RUN"] / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def _other_samples(place: Place) -> None:
    """As if the folder had been changed under the run."""
    running = json.loads((place.names["RUN"] / "config.json").read_text())["running"]
    _change_config(place, running={**running, "synthetic_samples": 48})


def _damage_checkpoints(place: Place) -> None:
    for path in (place.names["RUN"] / "checkpoints").glob("*.pt"):
        flip_byte(path)


def named(row: Row) -> str:
    """A row's test: what is amiss, and the end of its line."""
    amiss, line, _, _ = row
    beginning = next((part for part in (NEW, IMAGES, AGAIN, FILL) if line.startswith(part)), "")
    return f"{amiss} {line.removeprefix(beginning)}".strip()


AMISS: dict[str, Callable[[Place], object]] = {
    "": lambda place: None,
    "no CUDA": lambda place: pytest.skip("this machine has CUDA") if torch.cuda.is_available() else None,
    "an empty class": lambda place: (place.names["DATA"] / "train" / "class4").mkdir(),
    "no classes": _empty_val,
    "no val": lambda place: shutil.rmtree(place.names["DATA"] / "val"),
    "other classes": lambda place: (place.names["DATA"] / "val/class3").rename(place.names["DATA"] / "val/class9"),
    "an empty file": _spoil_image(lambda content: b""),
    "a cut file": _spoil_image(lambda content: content[:-40]),
    "a text": _spoil_image(lambda content: b"not an image\n" * 50),
    BREAKS: lambda place: cut_after_indexing(place.names["DATA"]),
    "other samples": _other_samples,
    "no whole checkpoint": _damage_checkpoints,
    "half a configuration": lambda place: (place.names["RUN"] / "config.json").write_text('{"recipe": '),
    "a newer configuration": lambda place: _change_config(place, telepathy=1),
    "a file in the index's place": lambda place: (place.names["DATA"] / "val.index.h5").write_text("mine"),
    "a damaged head": lambda place: (place.names["STORE"] / "head.h5").write_bytes(b"damaged"),
}


@pytest.fixture(autouse=True)
def _signal_handlers_come_back() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    torch.set_num_threads(1)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path, val_folder: Path) -> dict[str, Path]:
    """What lines name, made once; where a line could change it, a test has a copy."""
    folder = tmp_path_factory.mktemp("made")
    names = {name: folder / name for name in ("DATA", "RUN", "STORE", "FOREIGN", "MINE", "TEN")}
    names |= {"PHOTOS": photo_folder, "VAL": val_folder, "TEACHER": Path(write_teacher(folder))}
    for split in ("train", "val"):
        shutil.copytree(photo_folder, names["DATA"] / split)
    names["FOREIGN"].mkdir()
    (names["FOREIGN"] / "thesis.tex").write_text("years of work")
    names["MINE"].write_text("a file")
    teacher_of_classes(10, names["TEN"])
    place = Place(folder, folder, names)
    assert train(place.filled(AGAIN)) == 0
    assert fill(place.filled(ON)) == 0
    return names


@pytest.fixture
def place_of(made: dict[str, Path], tmp_path: Path) -> Callable[[str], Place]:
    def place_of(line: str) -> Place:
        """With copies of what the line names."""
        folder, new = tmp_path / "kept", tmp_path / "new"
        folder.mkdir()
        names = {name: path for name, path in made.items() if name in line}
        for name in names.keys() - {"PHOTOS", "VAL", "TEACHER"}:
            copy = shutil.copytree if names[name].is_dir() else shutil.copy
            names[name] = Path(copy(made[name], folder / name))
        return Place(folder, new, {**names, "NEW": new})

    return place_of


@dataclass(frozen=True)
class Said:
    """How a program ended, and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[[Program, str], Said]:
    def run(main: Program, line: str) -> Said:
        """The program's end in this process: starting Python costs a second, and torch three."""
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["program", *line.split()])
        with pytest.raises(SystemExit) as end:
            run_command(main)
        said = capfd.readouterr()
        return Said(end.value.code, said.out, said.err)  # type: ignore[arg-type]

    return run


Refused = Callable[[Program, Row], tuple[Place, Said]]


@pytest.fixture
def refused(place_of: Callable[[str], Place], run: Callable[[Program, str], Said]) -> Refused:
    def refused(main: Program, row: Row) -> tuple[Place, Said]:
        """Run a row and check what all have in common."""
        amiss, line, code, words = row
        place = place_of(line)
        AMISS[amiss](place)
        before = bytes_of(place.folder)
        said = run(main, place.filled(line))
        assert said.code == code, said
        check_said(said.err, [place.filled(word) for word in words])
        assert bytes_of(place.folder) == before, "nothing is overwritten, nothing is written beside"
        return place, said

    return refused


@pytest.mark.parametrize("row", IMAGENET, ids=named)
def test_imagenet(row: Row, refused: Refused, capfd: pytest.CaptureFixture[str]) -> None:
    run = refused(imagenet.main, row)[0].new
    if (run / "state.json").exists():
        state = state_of(run)
        assert state["state"] == ("usage" if row[2] == 2 else "failed")
        assert all(word in state["message"] for word in row[3])
    assert (run / "config.json").exists() == (row[0] == BREAKS), "a run that never began leaves no configuration behind"


@pytest.mark.parametrize("row", PRECOMPUTE, ids=named)
def test_precompute(row: Row, refused: Refused) -> None:
    assert not refused(precompute.main, row)[0].new.exists()


@pytest.mark.parametrize("row", PREPARE, ids=named)
def test_prepare(row: Row, refused: Refused) -> None:
    assert not refused(prepare.main, row)[0].new.exists()


@pytest.mark.parametrize("row", STORES, ids=named)
def test_stores(row: Row, refused: Refused) -> None:
    refused(stores.main, row)


@pytest.mark.parametrize("row", BENCHMARKS, ids=named)
def test_benchmarks(row: Row, refused: Refused) -> None:
    """Before anything is measured."""
    assert refused(benchmarks.main, row)[1].out == ""
    assert not Path("/no/such").exists()


def test_each_program_itself(tmp_path: Path) -> None:
    """All at once: each starts a process of its own."""
    for package in ("nvidia", "ffcv"):
        (tmp_path / "hidden" / package).mkdir(parents=True)
        (tmp_path / "hidden" / package / "__init__.py").write_text("raise ImportError('hidden by a test')\n")
    without, new = {"PYTHONPATH": f"{tmp_path / 'hidden'}:{REPOSITORY}"}, tmp_path / "new"
    lines: list[tuple[str, int, list[str]]] = [
        (f"launch/imagenet.py {NEW} --backend dali --data /", 2, ["nvidia-dali-cuda", "pip install"]),
        ("-m precompute --teacher resnet18@random --store NEW --views 5", 2, ["--views is FIRST:END"]),
        ("launch/prepare.py index --data NEW", 1, ["error: no such folder"]),
        ("-m stores show NEW", 1, ["is not a store"]),
        ("-m benchmarks loader --data NEW", 1, ["error: no such folder"]),
    ]
    jobs = [
        CommandJob(
            [sys.executable, *line.replace("NEW", str(new)).split()], log=tmp_path / f"log-{number}", env=without
        )
        for number, (line, _, _) in enumerate(lines)
    ]
    for job, (_, code, words) in zip(jobs, lines, strict=True):
        with running(job):
            assert job.exit_codes() == [code], job.text()
        check_said(job.text(), words)
