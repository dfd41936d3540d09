"""Fused losses and their rivals.

The rivals compute the same number from the same logits: the per-sample loop of CTKD's README, batched operations under
autograd, `torch.compile` of those, and Liger-Kernel's KL where it is installed and there is a GPU (with given
temperatures: it has no gradient by its target, so none by theirs).
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec

import torch
from torch.nn.functional import kl_div

from benchmarks._shared.clock import finish, kernel_spans
from benchmarks._shared.pairs import Pairs, alternate, seconds_of
from benchmarks.kernels import Kernels
from benchmarks.kernels.memory import Peak, peak_of
from pipeline.core.errors import ConfigError
from pipeline.kernels import dkd, kl, topk_kl, zscore_kl

Loss = Callable[["Inputs"], torch.Tensor]

_LOOP_ELEMENTS = 2_000_000_000  # B tensors of B x C that the loop's backward pass fills; more take minutes a step


@dataclass(frozen=True)
class Inputs:
    """One batch; `student` and, where learned, `temperature` want gradients; `one` is where backward passes begin."""

    student: torch.Tensor
    teacher: torch.Tensor
    labels: torch.Tensor
    temperature: torch.Tensor
    sparse: tuple[torch.Tensor, ...]
    one: torch.Tensor

    def copied(self, device: str | torch.device, dtype: torch.dtype | None = None) -> "Inputs":
        """A copy on a device, floating tensors in `dtype`, with fresh leaves."""

        def copy(tensor: torch.Tensor) -> torch.Tensor:
            kind = dtype if tensor.is_floating_point() else None
            return tensor.detach().to(device=device, dtype=kind, copy=True).requires_grad_(tensor.requires_grad)

        return Inputs(
            copy(self.student),
            copy(self.teacher),
            copy(self.labels),
            copy(self.temperature),
            tuple(map(copy, self.sparse)),
            copy(self.one),
        )


@dataclass
class KernelFigures:
    """Speeds in pairs (fused, rival), peaks, and on CUDA the fused forms' launches and share of the copy bandwidth."""

    pairs: list[Pairs] = field(default_factory=list)
    memory: list[Peak] = field(default_factory=list)
    cuda: dict[str, dict[str, float]] = field(default_factory=dict)


def check_device(device: str) -> None:
    """Refuse CUDA where there is none.

    Raises:
        ConfigError: with the remedy.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda needs a CUDA device, and torch sees none here: leave it out")


def measure_kernels(settings: Kernels) -> KernelFigures:
    """All losses at all sizes; for kl with a temperature for each sample, given and learned."""
    figures, device = KernelFigures(), torch.device(settings.device)
    dtype = torch.bfloat16 if settings.half else torch.float32
    copied = _copy_bandwidth(device) if device.type == "cuda" else 0.0
    for loss, rows, classes in itertools.product(settings.losses, settings.batches, settings.classes):
        for learned in (False, True) if loss == "kl" else (False,):
            torch.compiler.reset()  # one size's code does not count against another's limit
            inputs = make_inputs(rows, classes, device, dtype, learned=learned)
            name = f"{loss}{' learned T' if learned else ''} B={rows} C={classes}"
            _measure(settings, name, loss, inputs, figures)
            if copied:
                figures.cuda[name] = _on_cuda(loss, inputs, copied)
    return figures


def make_inputs(
    rows: int, classes: int, device: torch.device, dtype: torch.dtype = torch.float32, *, learned: bool
) -> Inputs:
    """Normal logits of deviation 3, temperatures from 1 to 5, the greatest 20 logits for topk_kl."""
    generator = torch.Generator(device).manual_seed(0)
    student, teacher = (torch.randn(rows, classes, generator=generator, device=device) * 3 for _ in range(2))
    values, indices = teacher.topk(min(20, classes - 1))
    tail = torch.softmax(teacher, 1).scatter(1, indices, 0).sum(1)
    return Inputs(
        student.to(dtype).requires_grad_(),
        teacher.to(dtype),
        torch.randint(classes, (rows,), generator=generator, device=device),
        (torch.rand(rows, generator=generator, device=device) * 4 + 1).requires_grad_(learned),
        (indices, values, teacher.logsumexp(1), tail),
        torch.ones((), device=device),
    )


def step(loss: Loss, inputs: Inputs) -> None:
    """Forward and backward."""
    inputs.student.grad = inputs.temperature.grad = None
    loss(inputs).backward(inputs.one)


def seed_loop(inputs: Inputs) -> torch.Tensor:
    """The instance-wise loss as CTKD's README has it, which takes one sample after the other out of the batch.

    With its function for one sample as published in the authors' issue 13. The backward pass of each `[i]` fills a
    tensor of the whole batch's size.
    """
    rows = inputs.temperature.shape[0]
    total: torch.Tensor | float = 0.0
    for i in range(rows):
        student, teacher, temperature = inputs.student[i], inputs.teacher[i], inputs.temperature[i]
        log_q = torch.log_softmax(student.unsqueeze(0) / temperature, 1)
        p = torch.softmax(teacher.unsqueeze(0) / temperature, 1) + kl.CTKD_EPS
        total = total + temperature * temperature * torch.sum(p * (p.log() - log_q))
    return torch.as_tensor(total / rows)


def _batched(inputs: Inputs) -> torch.Tensor:
    """What one writes with torch's functions."""
    scale = inputs.temperature.unsqueeze(1)
    divergence = kl_div(
        torch.log_softmax(inputs.student.float() / scale, 1),
        torch.softmax(inputs.teacher.float() / scale, 1),
        reduction="none",
    )
    return (divergence.sum(1) * inputs.temperature**2).mean()


def _scalar(inputs: Inputs) -> torch.Tensor:
    """The fused form with one temperature, learned where the others are."""
    if inputs.temperature.requires_grad:
        return kl.kl(inputs.student, inputs.teacher, inputs.temperature.detach()[:1].requires_grad_())
    return kl.kl(inputs.student, inputs.teacher, 4.0)


def _liger(inputs: Inputs) -> torch.Tensor:
    from liger_kernel.transformers import LigerKLDIVLoss  # optional package

    scale = inputs.temperature.unsqueeze(1)
    each = LigerKLDIVLoss(reduction="none")(
        torch.log_softmax(inputs.student.float() / scale, 1), torch.softmax(inputs.teacher.float() / scale, 1)
    )
    return (each.sum(1) * inputs.temperature**2).mean()


_WEIGHTS = {"alpha": 1.0, "beta": 2.0}
FUSED: dict[str, Loss] = {
    "kl": lambda i: kl.kl(i.student, i.teacher, i.temperature),
    "dkd": lambda i: dkd.dkd(i.student, i.teacher, i.labels, i.temperature, **_WEIGHTS),
    "zscore_kl": lambda i: zscore_kl.zscore_kl(i.student, i.teacher, i.temperature),
    "topk_kl": lambda i: topk_kl.topk_kl(i.student, *i.sparse),
}
_LOGITS_READ = {"kl": 2, "dkd": 2, "zscore_kl": 2, "topk_kl": 1}  # matrices of B x C
REFERENCE: dict[str, Loss] = {
    "kl": lambda i: kl.reference(i.student, i.teacher, i.temperature),
    "dkd": lambda i: dkd.reference(i.student, i.teacher, i.labels, i.temperature, **_WEIGHTS),
    "zscore_kl": lambda i: zscore_kl.reference(i.student, i.teacher, i.temperature),
    "topk_kl": lambda i: topk_kl.reference(i.student, *i.sparse),
}
_PLAIN = REFERENCE | {"kl": _batched}


def _rivals(settings: Kernels, loss: str, inputs: Inputs) -> Iterator[tuple[str, Loss]]:
    learned, logits_BC = inputs.temperature.requires_grad, inputs.student
    available: dict[str, Loss] = {"eager": _PLAIN[loss], "compiled": torch.compile(_PLAIN[loss], dynamic=False)}
    if loss == "kl":
        available |= {"scalar": _scalar}
        if len(logits_BC) * logits_BC.numel() <= _LOOP_ELEMENTS:
            available["loop"] = seed_loop
        if logits_BC.is_cuda and not learned and find_spec("liger_kernel") is not None:
            available["liger"] = _liger
    yield from ((name, available[name]) for name in settings.rivals if name in available)


def _measure(settings: Kernels, name: str, loss: str, inputs: Inputs, figures: KernelFigures) -> None:
    fused = partial(step, FUSED[loss], inputs)
    figures.memory.append(peak_of(f"{name}: fused", fused, inputs.student))
    for rival, form in _rivals(settings, loss, inputs):
        theirs = partial(step, form, inputs)
        ours, others = (_rate(work, inputs.student.device, settings.window_s) for work in (fused, theirs))
        figures.pairs.append(alternate(f"{name} / {rival}", "steps/s", ours, others, settings.repeats))
        if rival in ("eager", "compiled"):
            figures.memory.append(peak_of(f"{name}: {rival}", theirs, inputs.student))


def _rate(work: Callable[[], None], device: torch.device, window_s: float) -> Callable[[], float]:
    """Steps per second over a window that is long enough to be timed; warmed up."""
    wait = partial(finish, device)
    seconds_of(work, 2)
    count = max(1, round(window_s / seconds_of(work, wait=wait)))
    return lambda: count / seconds_of(work, count, wait=wait)


def _on_cuda(name: str, inputs: Inputs, copied: float) -> dict[str, float]:
    """Launches of a step, the time of its kernels, and the bytes it must move over that time as a share of a copy's.

    It must read the logits and write the gradient, and the backward pass reads and writes the gradient once. Batches
    take turns, more than the L2 cache holds. Only kernels are timed: from Python, a step of few classes takes longer to
    start than to run.
    """
    loss, elements, size = FUSED[name], inputs.student.numel(), inputs.student.element_size()
    moved = elements * (_LOGITS_READ[name] * size + 4) + elements * (4 + size)
    cache = torch.cuda.get_device_properties(inputs.student.device).L2_cache_size
    batches = [inputs.copied(inputs.student.device) for _ in range(max(4, -(-4 * cache // moved)))]

    def turn() -> None:
        for batch in batches:
            step(loss, batch)

    turn()
    spans = kernel_spans(turn)
    seconds = sum(end - begin for begin, end in spans) / 1e6 / len(batches)
    return {
        "launches": len(spans) / len(batches),
        "kernels_us": 1e6 * seconds,
        "share_of_copy": moved / seconds / copied,
    }


def _copy_bandwidth(device: torch.device) -> float:
    """Bytes per second read and written by copies of 1 GiB."""
    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 20 * 2 * source.numel() / seconds_of(lambda: target.copy_(source), 20, wait=partial(finish, device))
