"""Before and after the work: accuracy and head checks, old leftovers, what is worth finishing, the plan's sums."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.core.command import format_bytes
from pipeline.core.errors import ConfigError, RefluxError, StoreError
from pipeline.devices.world import World
from pipeline.jobs.pulse import Pulse, Totals
from pipeline.jobs.signals import StopRequest
from pipeline.models.outputs import Outputs
from pipeline.teachers.preparation import preparation
from pipeline.teachers.rebuild import build_teacher
from pipeline.teachers.runner import TeacherRunner
from precompute.config import PlanConfig, PrecomputeConfig
from precompute.endings import Pace, store_remedies
from precompute.plan import check_free, cost_lines
from precompute.probe import check_head, check_top1
from precompute.report import format_duration
from precompute.speed import Speeds
from precompute.store_folder import remove_old_leftovers
from precompute.work import Unit
from stores.codec_registry import parse_codecs

CPU = torch.device("cpu")
JOB = PrecomputeConfig(teacher="demo_teacher@random", views="0:50", expect_top1=73.3)


def test_a_top1_within_half_a_point_passes() -> None:
    check_top1(JOB, 72.9)
    check_top1(JOB, 73.8)


@pytest.mark.parametrize("top1", [72.7, 73.9, 0.1])
def test_a_top1_further_off_shows_both(top1: float) -> None:
    with pytest.raises(ConfigError, match=rf"expected: 73.30 %\n  measured: {top1:.2f} %"):
        check_top1(JOB, top1)


def test_an_expectation_that_cannot_be_checked_is_refused() -> None:
    with pytest.raises(ConfigError, match="no validation images"):
        check_top1(JOB, None)


@pytest.mark.parametrize("keep", ["embedding_f16", "embedding_u8,dense_f16"])
def test_the_head_is_checked_within_the_codecs_rounding(keep: str) -> None:
    network, _ = build_teacher("demo_teacher@random", num_classes=7)
    prepare = preparation((0.5,) * 3, (0.2,) * 3, CPU, torch.channels_last)
    run = TeacherRunner(network, device=CPU, precision="fp32", prepare=prepare, batch=8)
    outputs = run.of_pixels(torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8))
    codecs = parse_codecs(keep, num_classes=7, embedding_dim=network.embedding_dim)
    setting = SimpleNamespace(teacher=run, codecs=codecs, config=JOB)
    check_head(setting, outputs)
    squashed = Outputs(logits=outputs.logits.clamp(max=outputs.logits.median()) - 0.1, embedding=outputs.embedding)
    with pytest.raises(ConfigError, match="not W f \\+ b"):
        check_head(setting, squashed)


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    old, new, shard = (tmp_path / "views" / "0003" / name for name in (".a.h5.1.tmp", ".b.h5.2.tmp", "rows.h5"))
    old.parent.mkdir(parents=True)
    for path in (old, new, shard):
        path.touch()
    for path in (old, shard):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    remove_old_leftovers(tmp_path)
    assert [path.exists() for path in (old, new, shard)] == [False, True, True]


def test_a_unit_is_finished_when_it_is_begun_and_nearly_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace, unit = Pace(batch=10), Unit((0,), 1000, 1400)
    assert not pace.can_finish(unit, 1010), "no batch done: nobody knows"
    for _ in range(4):
        now[0] += 2.0
        pace.note_batch()
    assert pace.can_finish(unit, 1310), "nine batches of two seconds"
    assert not pace.can_finish(unit, 1290), "eleven"
    assert not pace.can_finish(unit, 1000), "not begun"


def test_remedies_name_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot write the store .*No space left"), store_remedies(tmp_path):
        raise OSError(28, "No space left on device", str(tmp_path / "views"))
    with pytest.raises(RefluxError, match=r"refused a file: .*/data/x.jpg"), store_remedies(tmp_path):
        raise OSError(5, "Input/output error", "/data/x.jpg")
    with pytest.raises(StoreError, match="truncated"), store_remedies(tmp_path):
        raise StoreError("truncated")
    with pytest.raises(RuntimeError, match="a defect"), store_remedies(tmp_path):
        raise RuntimeError("a defect")


def test_a_pulse_sums_and_ends() -> None:
    seen: list[Totals] = []
    with Pulse(World(0, 1, torch.device("cpu"), 1), StopRequest(), seen.append) as pulse:
        pulse.count(10, 200, False)
        pulse.count(5, 100, True)
        pulse.leave(3)
    assert pulse.totals == seen[-1] == Totals(rows=15, num_bytes=300, shards=1, left=3)
    assert pulse.stop_name is None


def test_the_plan_adds_up() -> None:
    speeds = Speeds(loader=500.0, teacher=1000.0, together=400.0)
    lines = list(cost_lines(PlanConfig(JOB, epochs=20), rows=50 * 72_000, images=72_000, speeds=speeds))
    assert "the loader is the slower one" in lines[0]
    assert "2.5 h" in lines[1], "3,600,000 rows at 400 a second"
    assert "24 min" in lines[2], "20 epochs of 72,000 images at 1,000 a second"
    assert "from 7 student(s) on" in lines[2], "2.5 h over 0.4 h"


def test_a_store_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    check_free(tmp_path / "not" / "there", 1)
    with pytest.raises(ConfigError, match=r"does not fit: 1000\.00 TB"):
        check_free(tmp_path / "not" / "there", 10**15)


def test_units_for_people() -> None:
    assert [format_bytes(size) for size in (0, 999, 1000, 2.5e6, 64e9, 3e12)] == [
        *("0 bytes", "999 bytes", "1.00 kB", "2.50 MB", "64.00 GB", "3.00 TB")
    ]
    assert [format_duration(s) for s in (5, 600, 7200, 1e6)] == ["5 s", "10 min", "2.0 h", "11.6 days"]
