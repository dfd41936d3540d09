"""The online teacher as a CUDA graph gives the bits of its eager forward pass, batch after batch."""

from functools import partial

import torch

from benchmarks._shared.clock import finish
from benchmarks.gpu.findings import Outcome, Part, Setting, check, needs_cuda
from benchmarks.gpu.workloads import Graphs, config_of, open_workload

SECTION = (8, "the teacher as a CUDA graph", 40)

_STEPS = 3  # trained before, so that the graph is there and student and optimiser have used the device's memory


def parts(setting: Setting) -> list[Part]:
    """One for logits, one for feature maps too."""
    named = [Part(name, partial(_same, name, setting)) for name in ("KD online", "ReviewKD")]
    return needs_cuda(setting, named)


def _same(name: str, setting: Setting) -> Outcome:
    eager, graphed = (outputs_of(name, setting, graphs) for graphs in ("off", "teacher"))
    equal = all(torch.equal(a, b) for a, b in zip(eager, graphed, strict=True))
    computes = all(bool(value.abs().max() > 0) for value in eager)
    text = "equal bits" if equal else f"greatest difference {max(map(_distance, eager, graphed)):.2e}"
    return check(equal and computes, text if computes else f"{text}: the device computes nothing")


def outputs_of(name: str, setting: Setting, graphs: Graphs) -> list[torch.Tensor]:
    """The teacher's outputs for two batches, on the host, read after both were asked for.

    With deterministic kernels: else the graph's warm-up may choose another algorithm than the eager pass.
    """
    config = config_of(name, setting, batch=setting.pick(64, 32, 8), graphs=graphs, deterministic=True)
    with open_workload(config, setting) as training:
        teacher = training.networks.teacher
        assert teacher is not None, "an online workload has one"
        for _ in range(_STEPS):
            training.step()
        found = []
        for batch in training.next() + training.next():
            outputs = teacher.outputs(batch, training.networks.prepare(batch.images))
            found += [value.clone() for value in (outputs.logits, *outputs.features.values())]
        finish(torch.device(setting.device))
        return [value.cpu() for value in found]


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).abs().max())
