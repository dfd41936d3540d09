"""Are Triton's kernels right, as its interpreter runs them here, and do they compile for a CUDA machine?"""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = {"bfloat16": 8e-3, "float16": 1e-3}  # of a student's gradient, rounded to its type


@pytest.fixture(scope="module")
def measured() -> dict[str, list[float]]:
    """Each case's errors, from a process of its own: Triton reads TRITON_INTERPRET when kernels are defined."""
    command = [sys.executable, "-m", "tests.unit.triton_interpreted"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("loss", ["kl", "ctkd", "zscore_kl", "dkd", "topk_kl"])
def test_interpreted_kernels_equal_their_references(loss: str, measured: dict[str, list[float]]) -> None:
    cases = {name: errors for name, errors in measured.items() if name.split("-")[0] == loss}
    assert len(cases) == 6
    for name, (value, student, temperature) in cases.items():
        assert value < 2e-5, name
        assert student < TOLERANCE.get(name.split("-")[-1], 1e-4), name
        assert temperature < 1e-3, name


@pytest.mark.parametrize("check", ["deterministic", "number"])
def test_bits_are_the_same_twice_and_for_a_number_as_temperature(check: str, measured: dict[str, list[float]]) -> None:
    assert max(measured[check]) == 0


def test_a_label_or_index_that_is_no_class_makes_the_loss_nan_and_nothing_else(
    measured: dict[str, list[float]],
) -> None:
    assert measured["no class"] == [1, 1, 1, 1]


def test_one_graph_without_breaks(measured: dict[str, list[float]]) -> None:
    assert max(measured["compiled"]) == 0


ARGUMENTS = {
    **dict.fromkeys(["student", "teacher"], "*bf16"),
    **dict.fromkeys(["temperatures", "gradient", "slopes", "losses", "mean", "logsumexps", "tails"], "*fp32"),
    **dict.fromkeys(["number", "eps", "deviation_eps", "alpha", "beta", "least_tail"], "fp32"),
    **dict.fromkeys(["rows", "classes", "kept"], "i32"),
    "counter": "*i32",
    "labels": "*i64",
    "indices": "*i16",
    "values": "*fp16",
}
ONE_PASS = {"LANES": 256, "ALIGN": 8, "BLOCK": 1024, "ONE_PASS": True}  # 1000 classes
PIECES = {"LANES": 256, "ALIGN": 1, "BLOCK": 1024, "ONE_PASS": False}
TEMPERATURE = {"STRIDE_T": 1, "MOMENTS": True}
BUILDS: list[tuple[str, dict[str, Any]]] = [
    ("triton_kl", {**ONE_PASS, **TEMPERATURE, "EPS": True, "STANDARD": False}),
    ("triton_kl", {**PIECES, **TEMPERATURE, "EPS": False, "STANDARD": True}),
    ("triton_dkd", {**ONE_PASS, **TEMPERATURE}),
    ("triton_dkd", {**PIECES, **TEMPERATURE}),
    ("triton_topk_kl", {**ONE_PASS, "KEPT": 32}),
    ("triton_topk_kl", {**PIECES, "KEPT": 32}),
]


@pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="TRITON_INTERPRET is set: nothing is compiled")
@pytest.mark.parametrize(("module", "constants"), BUILDS, ids=lambda value: value if isinstance(value, str) else None)
def test_kernels_compile_for_cuda_without_such_a_machine(module: str, constants: dict[str, Any]) -> None:
    """Machine code for compute capability 9.0: what the interpreter accepts, the compiler may not.

    Rows of 1000 classes are read several at a time, though 1000 is not divisible by 16, which is all Triton asks.
    """
    from triton import compile as build
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = importlib.import_module(f"pipeline.kernels.{module}")._kernel
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else ARGUMENTS[name] for name in names}
    attributes = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if signature[name].startswith("*")}
    given = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, constexprs=given, attrs=attributes)
    target, options = GPUTarget("cuda", 90, 32), {"num_warps": 4, "enable_fp_fusion": True}
    built = build(source, target=target, options=options).asm
    assert built["cubin"]
    for instruction in ("ld", "st"):
        assert bool(re.search(rf"{instruction}\.global\S*\.v[248]", built["ptx"])) == (constants["ALIGN"] > 1)
