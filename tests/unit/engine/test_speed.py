"""Speed without the time of evaluations, and totals over restarts."""

import time

import pytest
import torch

from pipeline.devices.world import World
from pipeline.engine.speed import Speed

WORLD = World(0, 1, torch.device("cpu"), 1)


def test_steps_waits_and_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    speed = Speed(WORLD, batch=8)
    for _ in range(4):
        now[0] += 0.5
        speed.add(0.1)
    reading = speed.reading()
    assert reading.images_per_s == pytest.approx(4 * 8 / 2.0)
    assert reading.wait_share == pytest.approx(0.2)
    assert speed.reading() == reading, "no step since: the same reading again"
    speed.pause()
    now[0] += 50
    speed.resume()
    now[0] += 1.0
    speed.add(0.0)
    assert speed.reading().images_per_s == pytest.approx(8.0)
    assert speed.totals(10.0, 1.0) == pytest.approx({"seconds": 13.0, "waited": 1.4})
    assert reading.describe_wait() == "20%"
