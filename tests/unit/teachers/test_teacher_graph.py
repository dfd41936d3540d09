"""A teacher that no CUDA graph can hold is refused by name, on a null device."""

import pytest
from null_device.device import run

_WAITS = """
from pipeline.core.errors import ConfigError
from pipeline.teachers.graph import GraphedForward

def forward(images):
    return images * 2 if images.sum().item() >= 0 else images

try:
    GraphedForward(forward)(torch.zeros(2, 3, 8, 8, device="cuda"))
except ConfigError as error:
    answer(str(error))
"""


@pytest.mark.usefixtures("null_device")
def test_a_teacher_that_waits_for_the_device_is_refused_with_the_remedy() -> None:
    said = run(_WAITS)
    assert "never waits for the device" in said
    assert said.endswith("Leave the flag out.")
