"""Whose folder is it, and who says what went wrong."""

import errno
from pathlib import Path

import pytest

from launch.imagenet import all_recipes
from pipeline.config import Files, RunConfig
from pipeline.core.errors import CheckpointError, ConfigError, DataError, PeerError, RefluxError
from pipeline.jobs.attempt import Attempt, note_failure
from pipeline.jobs.checkpoint import check_fingerprints
from pipeline.jobs.open import with_remedy
from pipeline.jobs.run_folder import begin_run, read_saved_config
from pipeline.jobs.state import read_state, write_state


def config_of(run: Path) -> RunConfig:
    return all_recipes()["smoke"](Files(out=run))


def test_a_saved_configuration_comes_back(tmp_path: Path) -> None:
    assert read_saved_config(tmp_path / "new") is None
    begin_run(config_of(tmp_path), anew=False)
    assert read_saved_config(tmp_path) == config_of(tmp_path)


def test_a_start_that_failed_early_or_was_killed_leaves_no_foreign_folder(tmp_path: Path) -> None:
    Attempt(tmp_path, 0).accept()
    (tmp_path / "index").mkdir()
    (tmp_path / "launch.log").write_text("")
    (tmp_path / ".config.json.12345678.tmp").write_text("{")
    assert read_saved_config(tmp_path) is None
    Attempt(tmp_path, 0).accept()
    assert not list(tmp_path.glob(".*"))


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"thesis.tex.*\n.*another folder"):
        read_saved_config(tmp_path)


@pytest.mark.parametrize(
    ("error", "state"), [(ConfigError("flag"), "usage"), (DataError("file"), "failed"), (ValueError("bug"), "failed")]
)
def test_a_failure_is_told(tmp_path: Path, error: Exception, state: str) -> None:
    note_failure(tmp_path, error, 0)
    told = read_state(tmp_path)
    assert (told["state"], told["rank"]) == (state, 0)
    assert str(error) in told["message"]


def test_what_follows_from_another_ranks_failure_is_no_news(tmp_path: Path) -> None:
    note_failure(tmp_path, DataError("image broken"), 1)
    with pytest.raises(PeerError, match="rank 1 failed: image broken"):
        note_failure(tmp_path, RuntimeError("connection closed"), 0)
    assert read_state(tmp_path)["message"] == "image broken"


def test_a_failure_of_an_earlier_start_silences_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note_failure(tmp_path, DataError("yesterday"), 0)
    monkeypatch.setattr("pipeline.jobs.attempt._STARTED", read_state(tmp_path)["time"] + 3600)
    note_failure(tmp_path, ConfigError("rank 1 has no device"), 1)
    assert read_state(tmp_path)["message"] == "rank 1 has no device"


def test_an_interrupt_is_no_failure(tmp_path: Path) -> None:
    write_state(tmp_path, "running")
    note_failure(tmp_path, KeyboardInterrupt(), 0)
    assert read_state(tmp_path)["state"] == "running"


def test_a_full_disk_and_a_lost_peer_have_remedies(tmp_path: Path) -> None:
    full = with_remedy(OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl"), tmp_path, "all is kept")
    assert isinstance(full, RefluxError)
    assert "metrics.jsonl" in str(full)
    assert "Free space" in str(full)
    assert str(full).endswith("all is kept.")
    lost = with_remedy(
        RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer"), tmp_path, "all is kept"
    )
    assert isinstance(lost, RefluxError)
    assert "another rank" in str(lost)
    bug = ValueError("bug")
    assert with_remedy(bug, tmp_path, "all is kept") is bug


def test_other_data_are_refused_with_both_fingerprints() -> None:
    state = {"fingerprints": {"train": "aaa", "val": "bbb", "store": "sss"}}
    check_fingerprints(state, {"train": "aaa", "val": "bbb", "store": "sss"})
    with pytest.raises(CheckpointError, match=r"val data.*\n  checkpoint: bbb\n  now: +ccc"):
        check_fingerprints(state, {"train": "aaa", "val": "ccc", "store": "sss"})
    with pytest.raises(CheckpointError, match=r"store is not that.*\n  checkpoint: sss\n  now: +None"):
        check_fingerprints(state, {"train": "aaa", "val": "bbb", "store": None})
