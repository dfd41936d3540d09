"""The fused losses, captured in a CUDA graph: replayed on new logits they give the bits of the eager call."""

from functools import partial

import torch

from benchmarks.gpu.findings import Outcome, Part, Setting, check, needs_cuda
from benchmarks.gpu.sections.losses import CASES, DTYPES, Loss, differentiated, inputs_of, relative_error, sizes
from benchmarks.kernels.measure import Inputs

SECTION = (3, "fused losses in a CUDA graph", 40)

_WARM_UPS = 3  # compilation, counters and workspaces, before nothing may be allocated outside the graph's pool


def parts(setting: Setting) -> list[Part]:
    """A part for each loss."""
    named = [Part(name, partial(_replay, name, setting)) for name in CASES]
    return needs_cuda(setting, named)


def _replay(name: str, setting: Setting) -> Outcome:
    case, (rows, classes) = CASES[name], sizes(setting)
    differing, wrong = [], []
    for width in classes:
        inputs = inputs_of(rows, width, DTYPES["bf16"], learned=case.learned)
        static = inputs.copied(setting.device)
        graph, captured = _capture(case.ours, static)
        fresh = inputs.copied(setting.device)
        with torch.no_grad():
            for tensor, own in ((fresh.student, static.student), (fresh.teacher, static.teacher)):
                own.copy_(tensor.mul_(0.5))
        graph.replay()
        eager = differentiated(case.ours, fresh)
        torch.cuda.synchronize()
        if not all(torch.equal(a, b) for a, b in zip(captured, eager, strict=True)):
            differing.append(width)
        exact = differentiated(case.exact, fresh.copied("cpu", torch.float64))
        if relative_error(captured[0], exact[0]) > 1e-3:
            wrong.append(width)
    text = f"replay differs from eager at C = {differing}" if differing else "replay equals eager, bit for bit"
    text += f"; wrong values at C = {wrong}" if wrong else ""
    return check(not differing and not wrong, text)


def _capture(loss: Loss, inputs: Inputs) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor]]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPS):
            differentiated(loss, inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = differentiated(loss, inputs)
    return graph, captured
