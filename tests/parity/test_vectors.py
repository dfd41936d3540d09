"""Our methods give the numbers that the authors' own code gave: losses, every gradient, one optimiser step.

    KD_VECTORS=DIR pytest tests/parity/test_vectors.py

runs every .npz in DIR through the adapter of its family, from the `CASES` of the files `vector_cases_*.py` beside this
one. A family is a file name's beginning; the longest known one counts, and none is a failure. Without KD_VECTORS the
folder is `shared/vectors` beside the repository, and where that is absent the test is skipped.

What an adapter needs to know is in the file: numbers and names of stages, shapes, hyper-parameters. All of these must
be passed on. The adapters' tools, and the tolerances, are in `vector_tools.py`, names of parameters in
`vector_problem.py`. Vectors in which the authors' code shows a
defect are `RECORDED_DEFECTS`, with what ours does instead; each adapter asserts just that.
"""

import contextlib
import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from method_cases import one_thread
from vector_problem import problem_of
from vector_tools import Vector, tensor

__all__ = ["one_thread"]

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("KD_VECTORS", HERE.parent.parent.parent / "shared" / "vectors"))
FILES = sorted(FOLDER.glob("*.npz"))

Case = Callable[[Vector], None]

# file-name beginning: what the authors' numbers record, and why ours are others
RECORDED_DEFECTS = {
    "dkd_edge_underflow": "the official loss is inf and its gradient NaN where the student's mass outside the"
    " label underflows in float32; ours works in log space: finite, and equal to float64",
    "ctkd_dkd_nan_repro": "CTKD + DKD is NaN from step 2 on torch >= 1.13, whose kl_div differentiates a target"
    " with zeros; ours stays finite in loss and in the temperature's gradient",
    "at_seed004": "sums channels without a square and divides every sample by every sample's norm, a broadcast into"
    " [B, B, H, W]; reproduced by AT(variant='seed004'), never the default",
    "sp_seed004": "divides rows by a norm without a floor: 0 / 0 for a map of zeros; ours has torch's floor of 1e-12,"
    " the same value everywhere else",
    "semckd_simkd": "holds parameters (`nograd.*`, also in loop_simkd_semckd) of a branch that nothing calls, which DDP"
    " refuses; ours leaves them out, and everything else is equal",
    "reviewkd_inplace_relu_check": "the authors' ResNets hand out rectified maps where they mean those before the ReLU;"
    " ours has both, student_maps and teacher_maps say which, and the default is what the authors ran",
    "margin_relu_seed004": "its training takes margins from BatchNorms before the teacher's weights are loaded, all"
    " -0.7979; ours from the loaded teacher. The loss at the vector's margins is equal",
    "ofd_margin_sweep": "divides by a scale of 0; ours gives the limit. Equal elsewhere",
}


def _cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for path in sorted(HERE.glob("vector_cases_*.py")):
        for family, case in importlib.import_module(path.stem).CASES.items():
            assert family not in cases, f"two adapters for the family {family}"
            cases[family] = case
    return cases


CASES = _cases()


def _family(name: str) -> str | None:
    known = [family for family in CASES if name == family or name.startswith(f"{family}_")]
    return max(known, key=len, default=None)


def test_there_are_vectors() -> None:
    if not FOLDER.is_dir() and "KD_VECTORS" not in os.environ:
        pytest.skip(f"no vectors here: {FOLDER} is missing (set KD_VECTORS)")
    assert FILES, f"no .npz file in {FOLDER}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_vector(path: Path) -> None:
    family = _family(path.stem)
    assert family is not None, f"{path.name} is of no known family: write its adapter in a vector_cases_*.py"
    with np.load(path) as file:
        contents = {name: file[name] for name in file.files}
    vector = Vector(contents, json.loads(str(contents.pop("meta_json"))), CASES[family])
    try:
        vector.compare()
    except Exception as error:
        if not vector.hp.implied:
            raise
        raise AssertionError(
            f"{path.name}: {error}\nOur method has no argument for {vector.hp.implied}: if that is what differs, it"
            " cannot express this file."
        ) from error
    assert not vector.unread(), f"{path.name} holds results that its adapter never compared: {vector.unread()}"
    assert not vector.hp.unread(), f"{path.name} has hyper-parameters that went nowhere: {vector.hp.unread()}"


def test_every_recorded_defect_has_an_adapter() -> None:
    without = [name for name in RECORDED_DEFECTS if _family(name) is None]
    assert not without, f"no adapter for {without}"


@pytest.mark.parametrize(
    ("dtype", "off", "agrees"),
    [(np.float64, 1e-9, True), (np.float64, 1e-7, False), (np.float32, 1e-6, True), (np.float32, 1e-3, False)],
)
def test_a_result_may_be_off_by_rounding_and_no_more(dtype: type[np.floating], off: float, agrees: bool) -> None:
    values = np.linspace(1, 2, 1000).astype(dtype)
    arrays = {"in.x": values, "out.loss": np.asarray(np.square(values).sum() * (1 + off), dtype)}
    vector = Vector(arrays, {}, lambda vector: vector.check("out.loss", tensor(vector["in.x"]).square().sum()))
    with contextlib.nullcontext() if agrees else pytest.raises(AssertionError, match=r"out\.loss: .* allowed"):
        vector.compare()


def test_a_map_before_its_activation_needs_no_number() -> None:
    values = np.linspace(-1, 1, 8).reshape(1, 2, 2, 2)
    vector = Vector({"in.preact_s": values, "in.preact_t": values}, {}, lambda vector: None)
    maps = problem_of(vector).batch.student.features
    assert (maps["stage0.pre"].min(), maps["stage0"].min()) == (-1, 0)


def test_a_file_says_all_that_went_unused() -> None:
    arrays = {"in.x": np.ones(2), "out.loss": np.ones(()), "grad.in.x": np.ones(2), "step1.out.loss": np.ones(())}

    def case(vector: Vector) -> None:
        vector.hp["LOSS"].implies("EPS")
        vector.check("out.loss", tensor(vector["in.x"]).mean())

    vector = Vector(arrays, {"hp": {"T": 4, "LOSS": {"EPS": 1e-3, "WEIGHT": 2}}}, case)
    vector.compare()
    assert vector.unread() == ["grad.in.x", "step1.out.loss"]
    assert vector.hp.unread() == ["T", "LOSS.WEIGHT"]
    assert vector.hp.implied == {"LOSS.EPS": 1e-3}
