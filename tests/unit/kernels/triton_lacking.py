"""Losses on CUDA, in a process for which Triton may lack a compiler: python -m tests.unit.kernels.triton_lacking

Prints one JSON object. Without a device its tensors are fake: they have a device and shapes, and no values.
"""

import json
import warnings
from contextlib import nullcontext
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.build import compile_module_from_src

from pipeline.kernels import dispatch, kl, philox, topk_kl, zscore_kl

# all that Triton's own helper asks of a machine: a compiler and Python's headers
HELPER = """#include <Python.h>
static struct PyModuleDef helper = {PyModuleDef_HEAD_INIT, "helper"};
PyMODINIT_FUNC PyInit_helper(void) { return PyModule_Create(&helper); }
"""


class Operators(TorchDispatchMode):
    """Counts Reflux's own operators: each is one Triton kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.launched = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.launched += func.namespace == "reflux"
        return func(*args, **(kwargs or {}))


def results() -> list[tuple[torch.Tensor, ...]]:
    """Each loss as a run would call it, and its reference; random words on the device, and on the host."""
    student, teacher = (torch.randn(3, 40, device="cuda") for _ in range(2))
    values, indices = teacher.topk(3)
    tail = torch.softmax(teacher, 1).scatter(1, indices, 0).sum(1)
    sparse = indices.to(torch.int16), values, teacher.logsumexp(1), tail
    pairs = [(each(student, teacher, 4.0), exact(student, teacher, 4.0)) for each, exact in DENSE]
    drawn = [philox.row_words(torch.arange(3, device=device), 2, 5, 0, key=(7, 6)) for device in ("cuda", "cpu")]
    return [
        *pairs,
        (topk_kl.topk_kl(student, *sparse), topk_kl.reference(student, *sparse)),
        tuple(each.double().sum() for each in drawn),
    ]


DENSE = [(kl.kl, kl.reference), (zscore_kl.zscore_kl, zscore_kl.reference)]


def main() -> None:
    """What ran, what was said, and how far from the references."""
    real = torch.cuda.is_available()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with nullcontext() if real else FakeTensorMode(), Operators() as operators:
            pairs = results() + results()
    errors = [float((ours - exact).abs() / exact) for ours, exact in pairs] if real else []
    with warnings.catch_warnings(record=True) as refused:
        warnings.simplefilter("always")
        builds = dispatch.attempt(lambda: compile_module_from_src(HELPER, "helper"))
    found = {"said": [str(each.message) for each in said], "refused": [str(each.message) for each in refused]}
    print(json.dumps(found | {"launched": operators.launched, "errors": errors, "builds": builds}))


if __name__ == "__main__":
    main()
