"""Do Triton's kernels compile for CUDA machines without one, and does what they need fit into registers?"""

import os
import re
from importlib.metadata import version

import pytest

pytest.importorskip("triton")
if "TRITON_INTERPRET" in os.environ:
    pytest.skip("TRITON_INTERPRET is set: nothing is compiled", allow_module_level=True)

from tests.unit.kernels.triton_ahead import build, kernels, launches

CAPABILITIES = (80, 90, 100)  # A100, H100, B200
MOST_REGISTERS = {
    4: 96,
    16: 128,
}  # of a thread, by warps: of 65,536 a multiprocessor; five short rows at a time, or one
# bytes: older wheels' ptxas for sm_100 spills one word of two kernels
MOST_SPILLED = 0 if tuple(map(int, version("triton").split(".")[:2])) >= (3, 8) else 8


def test_every_kernel_is_among_those_compiled_here() -> None:
    """A new kernel needs a line in `triton_ahead.launches` or, if it is a loss, in `triton_losses.losses`."""
    built = [each.kernel for launch in launches(100).values() for each in build(launch, CAPABILITIES[0])]
    assert set(built) == set(kernels())


@pytest.mark.parametrize("classes", [100, 1000, 8192, 21841])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_kernels_compile_ahead_within_their_registers(capability: int, classes: int) -> None:
    for name, launch in launches(classes).items():
        (built,) = build(launch, capability)
        assert built.stack <= MOST_SPILLED, f"{name} spills registers"
        assert built.registers <= MOST_REGISTERS[built.warps], name


@pytest.mark.parametrize("classes", [1000, 21841])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_rows_are_read_and_written_several_classes_at_a_time(capability: int, classes: int) -> None:
    """Though 1000 is not divisible by 16, which is all that Triton asks; rows of 21,841 begin at odd places."""
    for name, launch in launches(classes).items():
        (built,) = build(launch, capability)
        for instruction in ("ld", "st"):
            found = bool(re.search(rf"{instruction}\.global\S*\.v[248]", built.ptx))
            assert name in ("probe", "philox") or found == (classes == 1000), (name, instruction)
