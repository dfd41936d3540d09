"""What the Triton kernels share: one program a row, float32 arithmetic, the mean taken by the last program to finish.

A row of up to ONE_PASS classes is read once and stays in registers; longer rows are read in pieces, first for maximum
and normaliser (online), then for loss and gradient, while the second read still finds them in the L2 cache.

Legend as in `rows`: a, b scaled logits less their maximum, q, p their softmax, x = log(p / q), w = p x + q - p.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from pipeline.devices.streams import on_default_stream
from pipeline.kernels.gradient import Differentiated, with_gradient
from pipeline.kernels.rows import wants_gradient

ONE_PASS = 8192  # of float32 in 16 warps: longer rows spill registers
_PIECE = 4096
_MEAN_LANES = 1024
_counters: dict[torch.device, torch.Tensor] = {}

Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # a loss, and its gradients by logits and temperatures


@triton.jit
def load_row(logits, at, valid):
    """Logits in float32, 0 where not valid."""
    return tl.load(logits + at, mask=valid, other=0.0).to(tl.float32)


@triton.jit
def whole(z, valid, inverse):
    """Of a row in registers: maximum, sum of exp(scaled), mean of scaled under the softmax."""
    greatest = tl.max(tl.where(valid, z, float("-inf")), axis=0)
    scaled = tl.where(valid, (z - greatest) * inverse, 0.0)
    weights = tl.where(valid, tl.exp(scaled), 0.0)
    total = tl.sum(weights, axis=0)
    return greatest, total, tl.sum(weights * scaled, axis=0) / total


@triton.jit
def pieces(logits, classes, skipped, mean, scale, inverse, BLOCK: tl.constexpr):
    """`whole` for (logits - mean) * scale, in pieces; the class `skipped` is left out."""
    greatest = float("-inf")
    total = 0.0
    moment = 0.0
    for start in range(0, classes, BLOCK):
        at = start + tl.arange(0, BLOCK)
        valid = (at < classes) & (at != skipped)
        z = (load_row(logits, at, at < classes) - mean) * scale  # a mask with a hole would read one by one
        higher = tl.maximum(greatest, tl.max(tl.where(valid, z, float("-inf")), axis=0))
        if higher > float("-inf"):
            fall = tl.where(total > 0, (greatest - higher) * inverse, 0.0)
            scaled = tl.where(valid, (z - higher) * inverse, 0.0)
            weights = tl.where(valid, tl.exp(scaled), 0.0)
            moment = (moment + fall * total) * tl.exp(fall) + tl.sum(weights * scaled, axis=0)
            total = total * tl.exp(fall) + tl.sum(weights, axis=0)
            greatest = higher
    return greatest, total, moment / total


@triton.jit
def terms(p, q, x):
    """w, q - p, and 2 w + x (q - p), from their series where |x| is small: nothing cancels."""
    difference = q - p
    w = p * x + difference
    bracket = 2 * w + x * difference
    near = tl.abs(x) < 0.3
    z = tl.where(near, x, 0.0)
    phi = 1 / 2 - z * (1 / 6 - z * (1 / 24 - z * (1 / 120 - z * (1 / 720 - z * (1 / 5040 - z / 40320)))))
    chi = 1 / 6 - z * (1 / 12 - z * (1 / 40 - z * (1 / 180 - z * (1 / 1008 - z * (1 / 6720 - z / 51840)))))
    slope = 1 - z * (1 / 2 - z * (1 / 6 - z * (1 / 24 - z * (1 / 120 - z * (1 / 720 - z / 5040)))))
    w = tl.where(near, p * z * z * phi, w)
    bracket = tl.where(near, p * z * z * z * chi, bracket)
    return w, tl.where(near, -p * z * slope, difference), bracket


@triton.jit
def compare(s, t, valid, stats_s, stats_t, mean_t, inverse, eps, classes, EPS: tl.constexpr):
    """Loss, gradient by the scaled logits, and bracket of each class; see `rows.divergence` and `kl._shifted`."""
    greatest_s, total_s = stats_s
    greatest_t, total_t = stats_t
    a = (s - greatest_s) * inverse
    b = (t - greatest_t) * inverse
    p = tl.where(valid, tl.exp(b) * (1 / total_t), 0.0)
    q = tl.where(valid, tl.exp(a) * (1 / total_s), 0.0)
    x = tl.where(valid, b - a + tl.log(total_s / total_t), 0.0)
    beta = b - mean_t
    if EPS:
        log_p = b - tl.log(total_t)
        shift = tl.where(log_p > -60, tl.log(1 + eps * tl.exp(-tl.maximum(log_p, -60.0))), tl.log(eps) - log_p)
        shift = tl.where(valid, shift, 0.0)
        y = x + shift
        extra = eps * classes
        w, difference, bracket = terms(tl.where(valid, p + eps, 0.0), q, y)
        difference += extra * q
        bracket += eps * beta * y + extra * q * (y - beta) - shift * difference
    else:
        w, difference, bracket = terms(p, q, x)
    return w, difference, bracket - beta * w


@triton.jit
def finish(losses, mean, counter, value, row, rows, LANES: tl.constexpr):
    """Store a row's loss; the last program of all adds them up, in an order that never changes."""
    tl.store(losses + row, value)
    tl.debug_barrier()
    finished = tl.atomic_add(counter, 1, sem="acq_rel")
    if finished == rows - 1:
        sums = tl.zeros([LANES], tl.float32)
        for start in range(0, rows, LANES):
            at = start + tl.arange(0, LANES)
            sums += tl.load(losses + at, mask=at < rows, other=0.0, volatile=True)
        tl.store(mean, tl.sum(sums, axis=0) / rows)
        tl.store(counter, 0)


def loss_of_rows(
    operator: Callable[..., Found], tensors: tuple[torch.Tensor, ...], temperature: float | torch.Tensor, *options: Any
) -> torch.Tensor:
    """What `operator` finds, tied to its gradients.

    Args:
        operator: takes the student's logits, whether the temperature's gradient is wanted, the temperature as a tensor
            or None and a number, the other tensors, and the options; gives `outputs`, filled.
        tensors: the student's logits, and what else has a row for each sample.
        temperature: as the loss's caller gave it.
        options: the operator's own.
    """
    moments = wants_gradient(temperature)
    with torch.no_grad():
        student_BC, *others = (tensor.detach().contiguous() for tensor in tensors)
        mean, gradient_BC, slopes_B = operator(student_BC, moments, *_of_rows(temperature), *others, *options)
        found = Differentiated(mean, gradient_BC, temperature=_gather_slopes(slopes_B, temperature))
    return with_gradient(found, tensors[0], temperature)


def outputs(student_BC: torch.Tensor, moments: bool, *_: object) -> Found:
    """Uninitialised: the mean (), the gradient (B, C), rows' slopes (B,) or (0,); float32. Operators take more."""
    mean = student_BC.new_empty((), dtype=torch.float32)
    slopes_B = student_BC.new_empty(student_BC.shape[0] if moments else 0, dtype=torch.float32)
    return mean, torch.empty_like(student_BC, dtype=torch.float32), slopes_B


def shared_arguments(student_BC: torch.Tensor, found: Found, one_pass: int) -> dict[str, Any]:
    """What every kernel is launched with: where it reads and writes, lengths, and how a row is divided among warps."""
    rows, classes = student_BC.shape
    block = triton.next_power_of_2(classes)
    fits = block <= one_pass
    if not fits:
        block = min(_PIECE, one_pass)
    return {
        "student": student_BC,
        "gradient": found[1],
        "losses": torch.empty(rows, dtype=torch.float32, device=student_BC.device),
        "mean": found[0],
        "counter": _counter_of(student_BC),
        "rows": rows,
        "classes": classes,
        "LANES": min(_MEAN_LANES, triton.next_power_of_2(rows)),  # losses that are added at a time
        # the greatest power of two, up to 16, that divides the classes: how wide a row may be read
        "ALIGN": min(classes & -classes, 16),
        "BLOCK": block,
        "ONE_PASS": fits,
        "num_warps": 4 if block <= 1024 else 8 if block <= 2048 else 16,
        "enable_fp_fusion": True,
    }


def tempered_arguments(
    student_BC: torch.Tensor,
    found: Found,
    moments: bool,
    temperature: torch.Tensor | None,
    number: float,
    one_pass: int,
) -> dict[str, Any]:
    """`shared_arguments`, and those of kernels with a temperature; a pointer that is not read points to the losses."""
    shared = shared_arguments(student_BC, found, one_pass)
    return {
        **shared,
        "temperatures": shared["losses"] if temperature is None else temperature,
        "number": number,
        "slopes": found[2] if moments else shared["losses"],
        "STRIDE_T": -1 if temperature is None else int(temperature.numel() > 1),
        "MOMENTS": moments,
    }


def _counter_of(tensor: torch.Tensor) -> torch.Tensor:
    """A zero on the tensor's device, for programs to count themselves; the last one leaves it at zero.

    One for each device's default stream, whose launches follow each other. On other streams each launch has its own,
    set to zero by one more: CUDA graphs warm up and record there, with memory that is not ours to keep.
    """
    device = tensor.device
    if device.type != "cuda" or not on_default_stream(device):
        return torch.zeros(1, dtype=torch.int32, device=device)
    if device not in _counters:
        _counters[device] = torch.zeros(1, dtype=torch.int32, device=device)
    return _counters[device]


def _of_rows(temperature: float | torch.Tensor) -> tuple[torch.Tensor | None, float]:
    """A temperature for an operator: a tensor of one or B elements and 1, or None and a number."""
    if isinstance(temperature, torch.Tensor):
        return temperature.detach().to(torch.float32).reshape(-1).contiguous(), 1.0
    return None, float(temperature)


def _gather_slopes(slopes_B: torch.Tensor, temperature: float | torch.Tensor) -> torch.Tensor | None:
    """The temperature's gradient, in its shape, from each row's share of it; None where there are none."""
    if not isinstance(temperature, torch.Tensor) or not slopes_B.numel():
        return None
    return (slopes_B.sum() if temperature.numel() == 1 else slopes_B).reshape(temperature.shape)
