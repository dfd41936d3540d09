"""Lines that a restart continues, and the state that job scripts read."""

import json
from pathlib import Path

import pytest

from pipeline.jobs.journal import Journal, LineWriter, drop_lines_from, read_lines
from pipeline.jobs.state import read_state, write_state


def test_a_restart_drops_what_will_come_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    for step in range(1, 6):
        journal.write("train", step, step / 5, {"loss": 1 / step, "note": "text"})
    journal.close()
    journal = Journal(tmp_path, 3)
    journal.write("eval", 3, 0.6, {"top1": 50.0})
    journal.close()
    lines = list(read_lines(tmp_path / "metrics.jsonl"))
    assert [(line["kind"], line["step"]) for line in lines] == [("train", 1), ("train", 2), ("train", 3), ("eval", 3)]
    assert lines[0]["loss"] == 1.0


@pytest.mark.parametrize(("evaluated", "kept"), [({3}, 1), (set(), 0)])
def test_an_evaluation_that_no_checkpoint_knows_comes_again(tmp_path: Path, evaluated: set[int], kept: int) -> None:
    journal = Journal(tmp_path, 0)
    journal.write("train", 3, 0.5, {"loss": 1.0})
    journal.write("eval", 3, 0.5, {"top1": 50.0})
    journal.close()
    Journal(tmp_path, 3, evaluated=evaluated).close()
    lines = list(read_lines(tmp_path / "metrics.jsonl"))
    assert [line["kind"] for line in lines] == ["train", *["eval"] * kept]


def test_numbers_survive_bit_for_bit(tmp_path: Path) -> None:
    writer = LineWriter(tmp_path / "lines.jsonl")
    writer.write({"step": 1, "loss": 0.1 + 0.2})
    writer.close()
    drop_lines_from(tmp_path / "lines.jsonl", 5)
    (line,) = read_lines(tmp_path / "lines.jsonl")
    assert line["loss"] == 0.1 + 0.2


def test_a_line_cut_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\n{"st')
    assert [line["step"] for line in read_lines(path)] == [0, 1]
    drop_lines_from(path, 1)
    assert path.read_text() == '{"step": 0}\n'


def test_state_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_state(tmp_path) == {}
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    write_state(tmp_path, "running", "training", step=3)
    write_state(tmp_path, "preempted", "stopped by SIGTERM")
    state = json.loads((tmp_path / "state.json").read_text())
    assert (state["state"], state["message"], state["job"]) == ("preempted", "stopped by SIGTERM", "77")
    assert "step" not in state
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
