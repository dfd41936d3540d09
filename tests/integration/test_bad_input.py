"""Bad input gets one message that names file or field, exit code 1 or 2, no traceback; nothing is overwritten.

A table a program. A row is what is amiss beforehand, if anything, the line, its exit code, and words of the message.
Capitals in a line stand for files and folders of the test; the line is run in this process, as the program runs it.
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
from recorded import GOLDEN, fill, read, train

from launch import imagenet, prepare
from pipeline.core.command import run_command
from precompute import __main__ as precompute
from stores import __main__ as stores

Row = tuple[str, str, int, list[str]]
Program = Callable[[], None]

RECIPES = list(read(GOLDEN / "flags.json")["and"])
BACKENDS = ["dali", "ffcv", "synthetic", "torchvision"]

BREAKS = "a file that breaks while training"
TINY = "--synthetic-samples 40 --synthetic-classes 4 --resolution 32 --batch 8 --log-every 1"
NEW = f"smoke --out NEW {TINY} --max-steps 1 --eval-every 100"
IMAGES = "smoke --out NEW --data DATA --backend torchvision --max-steps 1 --eval-every 100"
AGAIN = f"smoke --out RUN {TINY} --checkpoint-every 1 --eval-every 100 --max-steps 4"
IMAGENET: list[Row] = [
    ("", "kd_r34_r81 --out NEW", 2, ["unknown recipe 'kd_r34_r81'", "Did you mean 'kd_r34_r18'?", *RECIPES]),
    ("", "smoke --out NEW --epochs many", 2, ["--epochs", "many"]),
    ("", f"{NEW} --student resnet81", 2, ["unknown model 'resnet81'", "Did you mean 'resnet18'?", "mobilenet_v1"]),
    ("", f"{NEW} --backend torchvision", 2, ["no train images were named", "--data DIR"]),
    (
        "",
        f"{NEW} --train-dir PHOTOS --val-dir PHOTOS --backend torchvison",
        2,
        ["unknown backend 'torchvison'. Did you mean 'torchvision'?", *BACKENDS],
    ),
    ("", f"{NEW} --store /no/such", 2, ["no such store", "/no/such"]),
    ("", f"{NEW} --policy imagenet_trian", 2, ["unknown policy", "Did you mean 'imagenet_train'?", "_dali_simkd"]),
    ("", f"{NEW} --teacher demo_teacher", 2, ["demo_teacher@random", "needs weights"]),
    ("", f"{NEW} --teacher demo_teacher@/no/such.pt", 2, ["/no/such.pt", "not found"]),
    ("", f"{NEW} --teacher resnet18@IMAGENET1K_V1", 2, ["1000 classes", "the data set has 4"]),
    ("", f"{NEW} --teacher resnet18@IMAGENET1K_V9", 2, ["unknown weights of resnet18", "IMAGENET1K_V1"]),
    ("", f"{NEW} --student nowhere.py:net", 2, ["no such file: nowhere.py"]),
    ("", f"{NEW} --batch 9 --micro-batches 2", 2, ["--batch 9", "--micro-batches (2)", "8 or 10"]),
    ("", f"{NEW} --batch 48", 2, ["--batch 48", "40 samples"]),
    ("", f"{NEW} --batch 0", 2, ["--batch", "above 0", "0"]),
    ("", f"{NEW} --max-micro-batch 0", 2, ["--max-micro-batch", "above 0", "0"]),
    ("", f"{NEW} --student resnet18 --resolution 32 --batch 1", 2, ["1 x 1 at 32 px", "--batch", "--resolution"]),
    ("", f"{NEW} --resolution -1", 2, ["--resolution", "-1"]),
    ("", f"{NEW} --ema-decay 1.5", 2, ["--ema-decay", "1.5"]),
    ("", f"{NEW} --temperature 0", 2, ["--temperature", "0"]),
    ("", f"{NEW} --run-seed -3", 2, ["--run-seed", "-3"]),
    ("", f"{NEW} --beton x.beton --backend torchvision", 2, ["--beton", "ffcv", "torchvision"]),
    ("", f"{NEW} --backend ffcv", 2, ["no train images were named", "--beton FILE"]),
    ("", f"{NEW} --data /no/such/folder --backend torchvision", 1, ["/no/such/folder/train"]),
    ("", f"{NEW} --sync-bn", 2, ["--sync-bn", "CUDA"]),
    ("", f"{NEW} --cuda-graphs teacher --device cpu", 2, ["--cuda-graphs teacher", "CUDA"]),
    ("", f"{NEW} --dali-decoder mixed", 2, ["--dali-decoder mixed", "takes synthetic here", "name dali"]),
    ("", f"{NEW} --dali-hw-decoder-load 2", 2, ["--dali-hw-decoder-load", "2"]),
    ("no CUDA", f"{NEW} --device cuda", 2, ["--device cuda", "--device cpu"]),
    # images
    ("an empty class", IMAGES, 1, ["class4", "holds no image"]),
    ("no classes", IMAGES, 1, ["holds no class folders"]),
    ("no val", IMAGES, 1, ["no such folder", "val"]),
    ("other classes", IMAGES, 1, ["the same classes", "class9"]),
    ("an empty file", IMAGES, 1, ["class1/003.jpg", "0 bytes"]),
    ("a cut file", IMAGES, 1, ["class1/003.jpg", "not a readable image"]),
    ("a text", IMAGES, 1, ["class1/003.jpg", "not a readable image"]),
    (
        BREAKS,
        f"{IMAGES} --resolution 32 --batch 36",
        1,
        ["class1/003.jpg (sample id 21) cannot be decoded", "--on-bad-image gray"],
    ),
    ("", f"{IMAGES} --teacher demo_teacher@TEN", 2, ["10 classes", "the data set has 4"]),
    ("", f"{IMAGES} --teacher resnet18@TEN", 2, ["10 classes", "the data set has 4"]),
    # a folder that is no run's, and a run
    ("", f"smoke --out FOREIGN {TINY}", 2, ["thesis.tex", "another folder"]),
    ("", f"smoke --out MINE {TINY}", 1, ["MINE"]),
    ("", f"{AGAIN} --lr 0.5 --weight-decay 0.3", 2, ["difference: optimisation.lr\n  saved: 0.05\n  now:   0.5"]),
    ("", f"{AGAIN} --student resnet81", 2, ["resnet81"]),
    ("", f"{AGAIN} --lr -1", 2, ["--lr"]),
    ("", f"{AGAIN} --batch 48", 2, ["--batch 48"]),
    ("other samples", f"{AGAIN} --synthetic-samples 48", 1, ["train data are not those", "checkpoint: "]),
    (
        "no whole checkpoint",
        AGAIN,
        1,
        ["step-00000003.pt is damaged", "step-00000004.pt is damaged", "move the folder away"],
    ),
    ("half a configuration", AGAIN, 1, ["config.json cannot be read"]),
    ("a newer configuration", AGAIN, 2, ["['telepathy']"]),
]

FILL = (
    "--teacher TEACHER --train-dir PHOTOS --val-dir VAL --backend torchvision --resolution 32 --threads 1"
    " --device cpu --batch 16 --shard-rows 32 --keep dense_f16,embedding_f16"
)
ON, BEGIN = f"{FILL} --store STORE", f"{FILL} --store NEW"
PRECOMPUTE: list[Row] = [
    ("", f"{ON} --plan-seed 4", 1, ["'plan_seed' differs", "store:    0", "this job: 4"]),
    ("", f"{ON} --policy imagenet_eval", 1, ["'policy."]),
    ("", f"{ON} --resolution 40", 1, ["'teacher.resolution' differs", "store:    32", "this job: 40"]),
    ("", f"{ON} --batch 8", 1, ["'teacher.batch' differs"]),
    ("", f"{ON} --keep dense_f16", 1, ["'codecs"]),
    ("", f"{ON} --teacher demo_teacher@random", 1, ["'teacher.", "this job"]),
    ("", f"{ON} --expect-top1 99", 2, ["expected: 99.00 %", "measured:", "Wrong normalisation"]),
    ("", f"{ON} --teacher resnet18", 2, ["a teacher needs weights"]),
    ("", f"{ON} --keep zip", 2, ["unknown codec 'zip'", "dense_f16"]),
    ("", f"{ON} --train-dir /nowhere", 1, ["no such folder", "/nowhere"]),
    ("", f"{BEGIN} --teacher resnet18", 2, ["a teacher needs weights"]),
    ("", f"{BEGIN} --keep zip", 2, ["unknown codec 'zip'"]),
    ("", f"{BEGIN} --keep topk:5000", 2, ["k = 5000"]),
    ("", f"{FILL} --store FOREIGN", 2, ["thesis.tex"]),
]

PREPARE: list[Row] = [
    ("", "index", 2, ["--data DIR"]),
    ("", "index --train-dir DATA/train", 2, ["--out DIR"]),
    ("", "index --data NEW", 1, ["no such folder", "NEW/train"]),
    ("", "index --dada x", 2, ["--dada"]),
    ("", "index --data DATA --out MINE/sub", 2, ["cannot write into MINE/sub", "--out"]),
    ("", "index --data DATA --out /proc", 2, ["cannot write into /proc", "--out"]),
    ("other classes", "index --data DATA", 1, ["same classes", "class3", "class9"]),
    ("a file in the index's place", "index --data DATA", 1, ["val.index.h5 exists and differs"]),
    ("", "ffcv --out NEW", 2, ["exactly one of --data, --folder and --index; got none"]),
    ("", "ffcv --out NEW --data a --index b", 2, ["got --data, --index"]),
    ("", "ffcv --out NEW --folder a --max-side 0", 2, ["--max-side must be at least 1 pixel, got 0"]),
    ("", "ffcv --out NEW --folder a --quality 101", 2, ["--quality must lie in 1..100, got 101"]),
    ("", "ffcv --out NEW --folder a --num-workers 0", 2, ["--num-workers must be at least 1, got 0"]),
    ("", "ffcv --out MINE --data DATA", 2, ["--force"]),
]

STORES: list[Row] = [
    *[("", f"{name} FOREIGN", 1, ["error: FOREIGN is not a store"]) for name in ("show", "verify", "index")],
    ("a damaged head", "index STORE", 1, ["head.h5"]),
    ("", "verify", 2, ["STORE"]),
    ("", "shows STORE", 2, ["shows"]),
    ("", "verify STORE --data DATA", 2, ["python -m precompute audit STORE --data DATA"]),
]


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


Refused = Callable[[Program, Row], Place]


@pytest.fixture
def refused(place_of: Callable[[str], Place], run: Callable[[Program, str], Said]) -> Refused:
    def refused(main: Program, row: Row) -> Place:
        """Run a row and check what all have in common."""
        amiss, line, code, words = row
        place = place_of(line)
        AMISS[amiss](place)
        before = bytes_of(place.folder)
        said = run(main, place.filled(line))
        assert said.code == code, said
        check_said(said.err, [place.filled(word) for word in words])
        assert bytes_of(place.folder) == before, "nothing is overwritten, nothing is written beside"
        return place

    return refused


@pytest.mark.parametrize("row", IMAGENET, ids=named)
def test_imagenet(row: Row, refused: Refused, capfd: pytest.CaptureFixture[str]) -> None:
    run = refused(imagenet.main, row).new
    if (run / "state.json").exists():
        state = state_of(run)
        assert state["state"] == ("usage" if row[2] == 2 else "failed")
        assert all(word in state["message"] for word in row[3])
    assert (run / "config.json").exists() == (row[0] == BREAKS), "a run that never began leaves no configuration behind"


@pytest.mark.parametrize("row", PRECOMPUTE, ids=named)
def test_precompute(row: Row, refused: Refused) -> None:
    assert not refused(precompute.main, row).new.exists()


@pytest.mark.parametrize("row", PREPARE, ids=named)
def test_prepare(row: Row, refused: Refused) -> None:
    assert not refused(prepare.main, row).new.exists()


@pytest.mark.parametrize("row", STORES, ids=named)
def test_stores(row: Row, refused: Refused) -> None:
    refused(stores.main, row)


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
