"""Bad input gets one message that names file or field, exit code 1 or 2, no traceback; nothing is overwritten."""

import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jobs import (
    CommandJob,
    ForkedJob,
    command,
    flip_byte,
    lines_of,
    photo_flags,
    run_to_end,
    running,
    state_of,
    torchrun,
)

from launch.imagenet import all_recipes, main, parse_config
from pipeline.core.errors import CheckpointError, ConfigError, DataError, RefluxError
from pipeline.data.backend import backend_names
from pipeline.data.scan import scan_folder
from pipeline.fit import fit

TINY = [
    "--synthetic-samples",
    "40",
    "--synthetic-classes",
    "4",
    "--resolution",
    "32",
    "--batch",
    "8",
    "--log-every",
    "1",
]
ONE_STEP = ["--max-steps", "1", "--eval-every", "100"]


@pytest.fixture(autouse=True)
def _signal_handlers_come_back() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    torch.set_num_threads(1)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def refused(run: Path, *flags: str, recipe: str = "smoke") -> RefluxError:
    """The error of a command line; state.json has the right word for a new run, and stays as it is for another."""
    is_known, before = (run / "config.json").exists(), contents(run)
    with pytest.raises(RefluxError) as caught:
        fit(parse_config([recipe, "--out", str(run), *flags]))
    error = caught.value
    if is_known:
        assert contents(run) == before
    elif run.is_dir() and (run / "state.json").exists():
        state = state_of(run)
        assert state["state"] == ("usage" if error.exit_code == 2 else "failed")
        assert state["message"] == str(error)
    return error


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--student", "resnet81"], ["unknown model 'resnet81'", "Did you mean 'resnet18'?", "mobilenet_v1"]),
        (["--backend", "torchvision"], ["no train images were named", "--data DIR"]),
        (["--backend", "torchvison"], ["unknown backend 'torchvison'", "Did you mean 'torchvision'?"]),
        (["--store", "/no/such"], ["no such store", "/no/such"]),
        (["--policy", "imagenet_trian"], ["unknown policy", "Did you mean 'imagenet_train'?", "imagenet_dali_simkd"]),
        (["--teacher", "demo_teacher"], ["demo_teacher@random", "needs weights"]),
        (["--teacher", "demo_teacher@/no/such.pt"], ["/no/such.pt", "not found"]),
        (["--teacher", "resnet18@IMAGENET1K_V1"], ["1000 classes", "the data set has 4"]),
        (["--teacher", "resnet18@IMAGENET1K_V9"], ["unknown weights of resnet18", "IMAGENET1K_V1"]),
        (["--student", "nowhere.py:net"], ["no such file: nowhere.py"]),
        (["--batch", "9", "--micro-batches", "2"], ["--batch 9", "--micro-batches (2)", "8 or 10"]),
        (["--batch", "48"], ["--batch 48", "40 samples"]),
        (["--batch", "0"], ["--batch", "above 0", "0"]),
        (["--max-micro-batch", "0"], ["--max-micro-batch", "above 0", "0"]),
        (
            ["--student", "resnet18", "--resolution", "32", "--batch", "1"],
            ["1 x 1 at 32 px", "--batch", "--resolution"],
        ),
        (["--resolution", "-1"], ["--resolution", "-1"]),
        (["--ema-decay", "1.5"], ["--ema-decay", "1.5"]),
        (["--temperature", "0"], ["--temperature", "0"]),
        (["--run-seed", "-3"], ["--run-seed", "-3"]),
        (["--beton", "x.beton", "--backend", "torchvision"], ["--beton", "ffcv", "torchvision"]),
        (["--backend", "ffcv"], ["no train images were named", "--beton FILE"]),
        (["--data", "/no/such/folder", "--backend", "torchvision"], ["/no/such/folder/train"]),
        (["--sync-bn"], ["--sync-bn", "CUDA"]),
        (["--cuda-graphs", "teacher", "--device", "cpu"], ["--cuda-graphs teacher", "CUDA"]),
        (["--dali-decoder", "mixed"], ["--dali-decoder mixed", "takes synthetic here", "name dali"]),
        (["--dali-hw-decoder-load", "2"], ["--dali-hw-decoder-load", "2"]),
        pytest.param(
            ["--device", "cuda"],
            ["--device cuda", "--device cpu"],
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA"),
        ),
    ],
    ids=lambda value: " ".join(value) if value and str(value[0]).startswith("--") else "",
)
def test_flags_that_cannot_be(tmp_path: Path, flags: list[str], words: list[str]) -> None:
    error = refused(tmp_path / "run", *TINY, *ONE_STEP, *flags)
    assert error.exit_code == (1 if "--data" in flags else 2)
    for word in words:
        assert word in str(error)
    assert not (tmp_path / "run" / "config.json").exists(), "a run that never began leaves no configuration behind"


def test_an_unknown_recipe_and_an_unknown_backend_name_the_known_ones(tmp_path: Path, photo_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown recipe 'kd_r34_r81'.*Did you mean 'kd_r34_r18'") as caught:
        parse_config(["kd_r34_r81", "--out", "x"])
    assert all(name in str(caught.value) for name in all_recipes())
    folders = ["--train-dir", str(photo_folder), "--val-dir", str(photo_folder)]
    error = refused(tmp_path / "run", *ONE_STEP, *folders, "--backend", "torchvison")
    assert "unknown backend 'torchvison'. Did you mean 'torchvision'?" in str(error)
    assert all(name in str(error) for name in backend_names())


class TestFolders:
    """What is wrong with the images."""

    @pytest.fixture
    def data(self, photo_folder: Path, tmp_path: Path) -> Path:
        for split in ("train", "val"):
            shutil.copytree(photo_folder, tmp_path / "data" / split)
        return tmp_path / "data"

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            ("empty class", ["class4", "holds no image"]),
            ("no classes", ["holds no class folders"]),
            ("missing split", ["no such folder", "val"]),
            ("other classes", ["the same classes", "class9"]),
            ("zero bytes", ["class1/003.jpg", "0 bytes"]),
            ("truncated", ["class1/003.jpg", "not a readable image"]),
            ("text", ["class1/003.jpg", "not a readable image"]),
        ],
    )
    def test_are_refused_by_name(self, data: Path, tmp_path: Path, damage: str, words: list[str]) -> None:
        spoil(data, damage)
        before = sorted(data.rglob("*"))
        error = refused(tmp_path / "run", "--data", str(data), "--backend", "torchvision", *ONE_STEP)
        assert isinstance(error, DataError)
        for word in words:
            assert word in str(error)
        assert sorted(data.rglob("*")) == before, "nothing is written beside the images"

    def test_teacher_of_other_classes(self, data: Path, tmp_path: Path) -> None:
        run, weights = tmp_path / "run", tmp_path / "ten.pt"
        teacher_of_classes(10, weights)
        flags = ["--data", str(data), "--backend", "torchvision", *ONE_STEP]
        error = refused(run, *flags, "--teacher", f"demo_teacher@{weights}")
        assert "10 classes" in str(error)
        assert "the data set has 4" in str(error)
        error = refused(run, *flags, "--teacher", f"resnet18@{weights}")
        assert "do not fit" in str(error) or "10 classes" in str(error)

    def test_a_file_that_breaks_while_training_stops_the_run(self, data: Path, tmp_path: Path) -> None:
        flags = self.flags_after_a_break(data, tmp_path)
        error = refused(tmp_path / "run", *flags)
        assert "class1/003.jpg (sample id 21) cannot be decoded" in str(error)
        assert "--on-bad-image gray" in str(error)

    def test_or_is_gray_counted_and_listed(
        self, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        flags = self.flags_after_a_break(data, tmp_path)
        spoiled = data / "val" / "class2" / "005.jpg"
        spoiled.write_bytes(bytes(spoiled.stat().st_size))
        assert fit(parse_config(["smoke", "--out", str(tmp_path / "run"), *flags, "--on-bad-image", "gray"])) == "done"
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        assert (summary["replaced_ids"], summary["replaced_val_ids"]) == ([21], [41])
        assert summary["replaced_images"] == 2
        shown = capsys.readouterr().out
        assert f"gray: {data}/train/class1/003.jpg (id 21)" in shown
        assert f"gray: {spoiled} (id 41)" in shown

    def test_a_run_that_failed_before_its_first_checkpoint_may_change(
        self, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run, flags = tmp_path / "run", self.flags_after_a_break(data, tmp_path)
        refused(run, *flags, "--log-every", "1")
        line = {"kind": "train", "step": 1, "epoch": 0.5, "lr": 9.0}
        (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        old = list((run / "tensorboard").iterdir())
        changed = [*flags, "--on-bad-image", "gray", "--lr", "0.02", "--micro-batches", "2", "--log-every", "1"]
        assert fit(parse_config(["smoke", "--out", str(run), *changed])) == "done"
        assert (
            f"{run} has no checkpoint: begun anew with another configuration (optimisation." in capsys.readouterr().out
        )
        steps = [line["step"] for line in lines_of(run / "metrics.jsonl") if line["kind"] == "train"]
        assert steps == [1, 2]
        assert old
        assert not [path for path in old if path.exists()]
        error = refused(run, *changed, "--lr", "0.03")
        assert "first difference: optimisation.lr\n  saved: 0.02\n  now:   0.03" in str(error)
        shutil.rmtree(run / "checkpoints")
        assert "first difference" in str(refused(run, *changed, "--lr", "0.03")), "student.pt is not to be lost"

    def flags_after_a_break(self, data: Path, tmp_path: Path) -> list[str]:
        """An index is there; then one file is cut, at its old size, so that only decoding can tell."""
        flags = ["--data", str(data), "--backend", "torchvision", "--resolution", "32", "--batch", "36"]
        make_indexes(data)
        spoiled = data / "train" / "class1" / "003.jpg"
        content = spoiled.read_bytes()
        spoiled.write_bytes(bytes(len(content)))
        return [*flags, "--max-steps", "2"]


class TestResume:
    """What is wrong with the folder of the run."""

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        run = tmp_path_factory.mktemp("made") / "run"
        run_to_end(ForkedJob([*cls.line(run), "--max-steps", "4"], log=run.parent / "log"))
        return run

    @pytest.fixture
    def run(self, made: Path, tmp_path: Path) -> Path:
        shutil.copytree(made, tmp_path / "run")
        return tmp_path / "run"

    @staticmethod
    def line(run: Path) -> list[str]:
        return ["smoke", "--out", str(run), *TINY, "--checkpoint-every", "1", "--eval-every", "100"]

    def attempt(self, run: Path, *flags: str) -> RefluxError:
        return refused(run, *self.line(run)[3:], "--max-steps", "4", *flags)

    def test_a_foreign_folder_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        error = refused(tmp_path, *TINY)
        assert "thesis.tex" in str(error)
        assert "another folder" in str(error)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_what_a_killed_start_left_is_not_foreign(self, tmp_path: Path) -> None:
        (tmp_path / ".state.json.0123abcd.tmp").write_text("{")
        assert fit(parse_config([*self.line(tmp_path), "--max-steps", "1"])) == "done"
        assert not list(tmp_path.glob(".*"))

    def test_another_configuration_names_the_first_field(self, run: Path) -> None:
        error = self.attempt(run, "--lr", "0.5", "--weight-decay", "0.3")
        assert "first difference: optimisation.lr\n  saved: 0.05\n  now:   0.5" in str(error)

    @pytest.mark.parametrize("flags", [["--student", "resnet81"], ["--lr", "-1"], ["--batch", "48"]])
    def test_a_wrong_flag_leaves_the_state_of_a_finished_run(self, run: Path, flags: list[str]) -> None:
        assert self.attempt(run, *flags).exit_code == 2
        assert state_of(run)["state"] == "done"
        assert state_of(run)["step"] == state_of(run)["total_steps"] == 4

    def test_two_ranks_with_a_wrong_flag_say_it_once_and_leave_the_state(self, run: Path, tmp_path: Path) -> None:
        before = contents(run)
        line = [*self.line(run), "--max-steps", "4", "--lr", "0.5"]
        job = ForkedJob(line, log=tmp_path / "log", size=2)
        with running(job):
            assert not {0, 75} & set(job.exit_codes())
        check_text(job.text(), ["first difference: optimisation.lr"])
        assert {name: text for name, text in contents(run).items() if not name.endswith(".tmp")} == before
        run_to_end(ForkedJob([*self.line(run), "--max-steps", "5"], log=tmp_path / "again"))
        assert not list(run.glob(".*")), "what the ranks told each other goes with the next start"

    def test_fields_that_change_no_number_may_change(self, run: Path) -> None:
        assert fit(parse_config([*self.line(run), "--max-steps", "5", "--threads", "2", "--keep", "1"])) == "done"
        assert state_of(run)["step"] == 5

    def test_other_data_are_refused(self, run: Path) -> None:
        config = json.loads((run / "config.json").read_text())
        config["running"]["synthetic_samples"] = 48  # as if the folder had been changed under the run
        (run / "config.json").write_text(json.dumps(config))
        error = self.attempt(run, "--synthetic-samples", "48")
        assert isinstance(error, CheckpointError)
        assert "train data are not those" in str(error)
        assert "checkpoint: " in str(error)

    def test_a_damaged_newest_checkpoint_costs_a_step(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        flip_byte(run / "checkpoints" / "step-00000004.pt")
        assert fit(parse_config([*self.line(run), "--max-steps", "4"])) == "done"
        shown = capsys.readouterr().out
        assert "step-00000004.pt is damaged" in shown
        assert "going on after step 3" in shown

    def test_only_damaged_checkpoints_are_one_error(self, run: Path) -> None:
        for path in (run / "checkpoints").glob("*.pt"):
            flip_byte(path)
        error = self.attempt(run)
        assert isinstance(error, CheckpointError)
        assert str(error).count("is damaged") == 2
        assert "move the folder away" in str(error)

    def test_an_unreadable_configuration(self, run: Path) -> None:
        (run / "config.json").write_text('{"recipe": ')
        assert "config.json cannot be read" in str(self.attempt_unreadable(run))

    def test_a_configuration_of_a_newer_version(self, run: Path) -> None:
        config = json.loads((run / "config.json").read_text())
        (run / "config.json").write_text(json.dumps({**config, "telepathy": 1}))
        assert "['telepathy']" in str(self.attempt_unreadable(run))

    def attempt_unreadable(self, run: Path) -> RefluxError:
        with pytest.raises(RefluxError) as caught:
            fit(parse_config(self.line(run)))
        return caught.value

    def test_a_file_in_the_place_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("a file")
        error = refused(tmp_path / "run", *TINY)
        assert str(tmp_path / "run") in str(error)
        assert (tmp_path / "run").read_text() == "a file"


@pytest.mark.parametrize(("backend", "size"), [("torchvision", 1), ("ffcv", 2)])
def test_a_dry_run_saves_nothing(photo_folder: Path, tmp_path: Path, backend: str, size: int) -> None:
    run, scratch = tmp_path / "run", tmp_path / "scratch"
    scratch.mkdir()
    flags = [*photo_flags(photo_folder, photo_folder), "--batch", "12", "--max-steps", "2", "--backend", backend]
    line = ["smoke", "--out", str(run), *flags]
    if backend == "ffcv":
        pytest.importorskip("ffcv")

    def dry() -> str:
        entry = main_with_own_scratch
        return run_to_end(ForkedJob([*line, "--dry-run"], log=tmp_path / "log", size=size, entry=entry))

    assert "nothing was saved" in dry()
    assert not run.exists()
    assert not list(scratch.iterdir())
    run_to_end(ForkedJob(line, log=tmp_path / "log", size=size))
    before = contents(run)
    assert dry().count("copying") == (2 if backend == "ffcv" else 0), "the copy that the run has is used"
    assert contents(run) == before
    assert not list(scratch.iterdir())


def test_real_command_lines(photo_folder: Path, tmp_path: Path) -> None:
    """All at once: each starts a process of its own."""
    spoiled, hidden = tmp_path / "spoiled", tmp_path / "hidden"
    shutil.copytree(photo_folder, spoiled / "train")
    shutil.copytree(photo_folder, spoiled / "val")
    spoil(spoiled, "text")
    for package in ("nvidia", "ffcv"):
        (hidden / package).mkdir(parents=True)
        (hidden / package / "__init__.py").write_text("raise ImportError('hidden by a test')\n")
    folders = ["--train-dir", str(photo_folder), "--val-dir", str(photo_folder)]
    without = {"PYTHONPATH": str(hidden)}
    cases: list[tuple[list[str], dict[str, str], int, list[str]]] = [
        (["kd_r34_r81", "--out", "RUN"], {}, 2, ["unknown recipe", "kd_r34_r18"]),
        (["smoke", "--out", "RUN", "--epochs", "many"], {}, 2, ["--epochs", "many"]),
        (["smoke", "--out", "RUN", "--data", str(spoiled), "--backend", "torchvision"], {}, 1, ["class1/003.jpg"]),
        (["smoke", "--out", "RUN", *folders, "--backend", "dali"], without, 2, ["nvidia-dali-cuda", "pip install"]),
    ]
    jobs = []
    for number, (arguments, env, _, _) in enumerate(cases):
        line = [str(tmp_path / f"run-{number}") if part == "RUN" else part for part in arguments]
        jobs.append(command(line, log=tmp_path / f"log-{number}", env=env))
    for number, (job, (_, _, code, words)) in enumerate(zip(jobs, cases, strict=True)):
        check_refusal(job, tmp_path / f"run-{number}", code, words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batch", "9"], ["--batch 9 is not divisible by the number of ranks (2)"]),
        (["--teacher", "demo_teacher"], ["a teacher needs weights"]),
    ],
)
def test_two_ranks_say_it_once(tmp_path: Path, flags: list[str], words: list[str]) -> None:
    job = ForkedJob(["smoke", "--out", str(tmp_path / "run"), *TINY, *flags], log=tmp_path / "log", size=2)
    with running(job):
        codes = job.exit_codes()
    assert 2 in codes, job.text()
    assert not {0, 75} & set(codes)
    check_text(job.text(), words)
    assert state_of(tmp_path / "run")["state"] == "usage"


def test_torchrun_says_it_once(photo_folder: Path, tmp_path: Path) -> None:
    """A bad image on rank 1, in the middle of training, and nothing but its message from either rank."""
    data = tmp_path / "data"
    for split in ("train", "val"):
        shutil.copytree(photo_folder, data / split)
    line = ["smoke", "--out", str(tmp_path / "run"), *photo_flags(data / "train", data / "val"), "--batch", "72"]
    make_indexes(data)
    spoiled = data / "train" / "class1" / "003.jpg"
    spoiled.write_bytes(bytes(spoiled.stat().st_size))
    job = torchrun([*line, "--max-steps", "1"], log=tmp_path / "log")
    with running(job):
        assert job.exit_codes() == [1]
    ours = job.text().partition("ChildFailedError")[0]
    assert ours.count("class1/003.jpg (sample id 21) cannot be decoded") == 1, job.text()
    assert ours.count("error: ") == 1, job.text()
    assert state_of(tmp_path / "run")["state"] == "failed"
    assert "class1/003.jpg" in state_of(tmp_path / "run")["message"]


def main_with_own_scratch() -> None:
    """The program with its temporary files beside the run, where a test sees what is left of them."""
    tempfile.tempdir = str(Path(sys.argv[sys.argv.index("--out") + 1]).parent / "scratch")
    main()


def make_indexes(data: Path) -> None:
    for split in ("train", "val"):
        scan_folder(data / split)[0].save(data / f"{split}.index.h5")


def check_refusal(job: CommandJob, run: Path, code: int, words: list[str]) -> None:
    with running(job):
        assert job.exit_codes() == [code], job.text()
    check_text(job.text(), words)
    assert not run.exists() or state_of(run)["state"] == ("usage" if code == 2 else "failed")


def check_text(text: str, words: list[str]) -> None:
    for word in words:
        assert word in text, text
    assert text.count("error: ") + text.count("Value error") == 1, text
    assert "Traceback" not in text


def spoil(data: Path, damage: str) -> None:
    file = data / "train" / "class1" / "003.jpg"
    if damage == "empty class":
        (data / "train" / "class4").mkdir()
    elif damage == "no classes":
        shutil.rmtree(data / "val")
        (data / "val").mkdir()
    elif damage == "missing split":
        shutil.rmtree(data / "val")
    elif damage == "other classes":
        (data / "val" / "class3").rename(data / "val" / "class9")
    elif damage == "zero bytes":
        file.write_bytes(b"")
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-40])
    else:
        file.write_text("not an image\n" * 50)


def contents(run: Path) -> dict[str, bytes]:
    """What must not change."""
    files = [path for path in run.rglob("*") if path.is_file()]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def teacher_of_classes(count: int, path: Path) -> None:
    from pipeline.models.families.demo import demo_teacher

    torch.save(demo_teacher(num_classes=count).state_dict(), path)
