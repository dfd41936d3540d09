"""After bad input: what goes on, what may be changed, and what several ranks say of it, once."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from jobs import (
    ForkedJob,
    bytes_of,
    check_said,
    cut_after_indexing,
    flip_byte,
    lines_of,
    photo_flags,
    run_to_end,
    running,
    state_of,
    torchrun,
    wait_until,
)
from recorded import train

from launch.imagenet import main
from pipeline.core.errors import RefluxError

TINY = "--synthetic-samples 40 --synthetic-classes 4 --resolution 32 --batch 8 --log-every 1"
LINE = f"smoke {TINY} --checkpoint-every 1 --eval-every 100"


def refused(run: Path, line: str) -> str:
    """What is said of a line that leaves a run as it is."""
    before = bytes_of(run)
    with pytest.raises(RefluxError) as caught:
        train(line, "--out", run)
    assert bytes_of(run) == before
    return str(caught.value)


class TestImagesThatBreak:
    """An index is there; then an image is cut."""

    @pytest.fixture
    def data(self, photo_folder: Path, tmp_path: Path) -> Path:
        for split in ("train", "val"):
            shutil.copytree(photo_folder, tmp_path / "data" / split)
        return tmp_path / "data"

    @pytest.fixture
    def line(self, data: Path) -> str:
        return f"smoke --data {data} --backend torchvision --resolution 32 --batch 36 --max-steps 2 --log-every 1"

    def test_are_gray_counted_and_listed(
        self, data: Path, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cut_after_indexing(data, "train/class1/003.jpg", "val/class2/005.jpg")
        assert train(line, "--on-bad-image", "gray", "--out", tmp_path / "run") == 0
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        assert (summary["replaced_ids"], summary["replaced_val_ids"]) == ([21], [41])
        assert summary["replaced_images"] == 2
        shown = capsys.readouterr().out
        assert f"gray: {data}/train/class1/003.jpg (id 21)" in shown
        assert f"gray: {data}/val/class2/005.jpg (id 41)" in shown

    def test_a_run_that_failed_before_its_first_checkpoint_may_change(
        self, data: Path, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tmp_path / "run"
        cut_after_indexing(data)
        with pytest.raises(RefluxError, match="cannot be decoded"):
            train(line, "--out", run)
        (run / "metrics.jsonl").write_text(json.dumps({"kind": "train", "step": 1, "epoch": 0.5, "lr": 9.0}) + "\n")
        old = list((run / "tensorboard").iterdir())
        changed = f"{line} --on-bad-image gray --micro-batches 2"
        assert train(changed, "--lr", "0.02", "--out", run) == 0
        shown = capsys.readouterr().out
        assert f"{run} has no checkpoint: begun anew with another configuration (optimisation." in shown
        steps = [line["step"] for line in lines_of(run / "metrics.jsonl") if line["kind"] == "train"]
        assert steps == [1, 2]
        assert old
        assert not [path for path in old if path.exists()]
        difference = "first difference: optimisation.lr\n  saved: 0.02\n  now:   0.03"
        assert difference in refused(run, f"{changed} --lr 0.03")
        shutil.rmtree(run / "checkpoints")
        assert difference in refused(run, f"{changed} --lr 0.03"), "student.pt is not to be lost"

    def test_are_named_once_by_torchrun(self, data: Path, tmp_path: Path) -> None:
        """On rank 1, in the middle of training: nothing but its message from either rank."""
        line = ["smoke", "--out", str(tmp_path / "run"), *photo_flags(data / "train", data / "val"), "--batch", "72"]
        cut_after_indexing(data)
        job = torchrun([*line, "--max-steps", "1"], log=tmp_path / "log")
        with running(job):
            assert job.exit_codes() == [1]
        ours = job.text().partition("ChildFailedError")[0]
        assert ours.count("class1/003.jpg (sample id 21) cannot be decoded") == 1, job.text()
        assert ours.count("error: ") == 1, job.text()
        assert state_of(tmp_path / "run")["state"] == "failed"
        assert "class1/003.jpg" in state_of(tmp_path / "run")["message"]


class TestRun:
    """A run of four steps."""

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        run = tmp_path_factory.mktemp("made") / "run"
        assert train(LINE, "--max-steps", "4", "--out", run) == 0
        return run

    @pytest.fixture
    def run(self, made: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(made, tmp_path / "run"))

    def test_what_a_killed_start_left_is_not_foreign(self, tmp_path: Path) -> None:
        (tmp_path / ".state.json.0123abcd.tmp").write_text("{")
        assert train(LINE, "--max-steps", "1", "--out", tmp_path) == 0
        assert not list(tmp_path.glob(".*"))

    def test_two_ranks_with_a_wrong_flag_say_it_once_and_leave_the_state(self, run: Path, tmp_path: Path) -> None:
        before = bytes_of(run)
        line = [*LINE.split(), "--out", str(run)]
        job = ForkedJob([*line, "--max-steps", "4", "--lr", "0.5"], log=tmp_path / "log", size=2)
        with running(job):
            assert not {0, 75} & set(job.exit_codes())
        check_said(job.text(), ["first difference: optimisation.lr"])
        assert {name: text for name, text in bytes_of(run).items() if not name.endswith(".tmp")} == before
        run_to_end(ForkedJob([*line, "--max-steps", "5"], log=tmp_path / "again"))
        assert not list(run.glob(".*")), "what the ranks told each other goes with the next start"

    def test_fields_that_change_no_number_may_change(self, run: Path) -> None:
        assert train(f"{LINE} --max-steps 5 --threads 2 --keep 1", "--out", run) == 0
        assert state_of(run)["step"] == 5

    def test_a_damaged_newest_checkpoint_costs_a_step(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        flip_byte(run / "checkpoints" / "step-00000004.pt")
        assert train(LINE, "--max-steps", "4", "--out", run) == 0
        shown = capsys.readouterr().out
        assert "step-00000004.pt is damaged" in shown
        assert "going on after step 3" in shown


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
    before = bytes_of(run)
    assert dry().count("copying") == (2 if backend == "ffcv" else 0), "the copy that the run has is used"
    assert bytes_of(run) == before
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batch", "9"], ["--batch 9 is not divisible by the number of ranks (2)"]),
        (["--teacher", "demo_teacher"], ["a teacher needs weights"]),
    ],
)
def test_two_ranks_say_it_once(tmp_path: Path, flags: list[str], words: list[str]) -> None:
    job = ForkedJob(["smoke", "--out", str(tmp_path / "run"), *TINY.split(), *flags], log=tmp_path / "log", size=2)
    with running(job):
        codes = job.exit_codes()
    assert 2 in codes, job.text()
    assert not {0, 75} & set(codes)
    check_said(job.text(), words)
    assert state_of(tmp_path / "run")["state"] == "usage"


def main_with_own_scratch() -> None:
    """The program with its temporary files beside the run, where a test sees what is left of them."""
    tempfile.tempdir = str(Path(sys.argv[sys.argv.index("--out") + 1]).parent / "scratch")
    main()


def _main_without_weights_on_rank_1() -> None:
    if os.environ["RANK"] == "1":
        sys.argv += ["--teacher", "demo_teacher@nowhere.pt"]
    main()


def test_what_one_rank_alone_finds_is_said_by_it(tmp_path: Path) -> None:
    """A machine that lacks a file must not leave the others, and who reads state.json, without a word."""
    arguments = ["smoke", "--out", str(tmp_path / "run"), "--device", "cpu"]
    job = ForkedJob(arguments, log=tmp_path / "log", size=2, entry=_main_without_weights_on_rank_1)
    with running(job):
        wait_until(lambda: "nowhere.pt" in job.text(), "rank 1 to say what it lacks", job)
        assert state_of(tmp_path / "run")["state"] == "usage"
        assert "nowhere.pt" in state_of(tmp_path / "run")["message"]
