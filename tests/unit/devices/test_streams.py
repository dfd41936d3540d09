"""Streams and events have one home, and copies keep what they are given where there is no device."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY

from pipeline.devices.streams import copy_to_host, to_device

HOME = REPOSITORY / "pipeline" / "devices" / "streams.py"
METHODS = {"record_stream", "wait_stream", "record_event", "wait_event"}
WORDS = {"Stream", "ExternalStream", "Event", "stream", "current_stream", "default_stream", "set_stream", *METHODS}


def words_of_streams(path: Path) -> Iterator[str]:
    """Where a file speaks of streams or events: torch.cuda.X, torch.X, tensor.record_stream and the like."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch"):
            yield from (f"{path}:{node.lineno}: import {name.name}" for name in node.names if name.name in WORDS)
        if isinstance(node, ast.Attribute) and node.attr in WORDS:
            owner = ast.unparse(node.value)
            of_torch = owner in ("torch", "torch.cuda", "cuda", "torch.accelerator")
            if of_torch or node.attr in METHODS:
                yield f"{path}:{node.lineno}: {owner}.{node.attr}"


@pytest.mark.parametrize("package", ["pipeline", "precompute", "launch"])
def test_one_module_holds_every_stream_and_event(package: str) -> None:
    others = [path for path in sorted((REPOSITORY / package).rglob("*.py")) if path != HOME]
    found = [line for path in others for line in words_of_streams(path)]
    assert found == [], "streams and events belong in pipeline/devices/streams.py, which keeps their rules"
    assert package != "pipeline" or len(list(words_of_streams(HOME))) >= 5, "the search itself finds them"


def test_copies_of_host_tensors_are_whole_at_once_and_their_own() -> None:
    weight = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    state = {"module": {"weight": weight}, "momenta": [torch.arange(3), None, (1, 2.5, "text")]}
    kept = weight.clone()
    copied = copy_to_host(state)
    weight.zero_()
    content = copied.wait()
    assert torch.equal(content["module"]["weight"], kept)
    assert content["module"]["weight"].stride() == kept.stride()
    assert content["momenta"][1:] == [None, (1, 2.5, "text")]


def test_without_a_device_images_stay_where_they_are() -> None:
    images = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    assert to_device(images, torch.device("cpu")) is images
