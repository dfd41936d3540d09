"""What the fused losses share: rows of logits, softened, in few passes over little memory, on any device.

On a processor the rows are walked in blocks that stay in its cache, over scratch memory that is kept for the next call:
fresh pages cost more there than the arithmetic on them. Under `torch.compile` and on other devices all rows are one
block and the allocator is asked.

Precision: logits are shifted by their row's maximum before they are divided by the temperature, and a divergence is
summed as sum_c [p log(p/q) + q - p], whose terms are of second order in log(p/q): rounding of the two normalisers
cancels. Where the two distributions nearly agree (large temperatures) its series is summed instead. The plain form
loses 3 % of the loss at T = 1000 in float32, where T^2 blows its rounding up.

Legend: R rows of a block, B batch, C classes; z logits, a = (z_s - max)/T, b = (z_t - max)/T, q and p their softmax,
x = log(p/q), w = p x + q - p >= 0, beta = b - E_p[b].
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import factorial
from typing import Any

import torch

from pipeline.kernels.gradient import Differentiated, with_gradient

_BLOCK_ELEMENTS = 300_000  # a block costs about 0.1 ms on two cores, whatever its size; larger ones leave the cache
_LEAST_ELEMENTS = 32_768  # of a block that is made for the sake of memory alone
# of |x|: the series below then end with terms under 1e-8 and 1e-17 of the sum
_NEARLY_EQUAL = {torch.float32: 0.3, torch.float64: 0.02}
_NEARLY_EQUAL_KL = 0.06  # a divergence above this has an |x| above 0.3
_PHI = tuple((-1) ** n / factorial(n) for n in range(2, 9))  # of x^2
_CHI = tuple((-1) ** (n - 1) * (n - 2) / factorial(n) for n in range(3, 10))  # of x^3
_KEPT = threading.local()

Block = tuple[torch.Tensor, ...]  # the same rows of several tensors

DEVIATION_EPS = 1e-7  # of a standard score
LEAST_TAIL = 2.0**-126  # float32's least normal number: its logarithm is finite, its mass is nothing


def working_dtype(*tensors: torch.Tensor) -> torch.dtype:
    """float32, or float64 where any tensor has it."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def eager_on_processor(tensor: torch.Tensor) -> bool:
    """Whether the host computes now: it may look at values, and memory traffic is its own affair."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def rows_of_block(logits_BC: torch.Tensor, *, least: int = 1) -> int:
    """Rows that are worked on at a time; the last block may have fewer.

    Args:
        logits_BC: any logits.
        least: blocks to make at least, to bound scratch memory, where there is enough to divide.
    """
    rows, classes = logits_BC.shape
    if rows == 0 or not eager_on_processor(logits_BC):
        return max(rows, 1)
    elements = rows * classes
    count = max(min(least, -(-elements // _LEAST_ELEMENTS)), -(-elements // _BLOCK_ELEMENTS))
    return -(-rows // count)


def scratch(like_RC: torch.Tensor, count: int) -> list[torch.Tensor]:
    """Uninitialised buffers in the shape of `like_RC`, good until this thread's next call."""
    if not eager_on_processor(like_RC):
        return [torch.empty_like(like_RC) for _ in range(count)]
    kept: dict[Any, torch.Tensor] = _KEPT.__dict__
    elements = count * like_RC.numel()
    flat = kept.get(like_RC.dtype)
    if flat is None or flat.numel() < elements:
        with torch.inference_mode(mode=False):
            flat = kept[like_RC.dtype] = torch.empty(max(elements, 1024), dtype=like_RC.dtype)
    return list(flat[:elements].view(count, *like_RC.shape).unbind())


def check_rows(
    student_BC: torch.Tensor, temperature: float | torch.Tensor = 1.0, **others: tuple[torch.Tensor, tuple[int, ...]]
) -> None:
    """Refuse what cannot be compared, before a kernel reads past its end; without a look at the device's values.

    Args:
        student_BC: the student's logits.
        temperature: a number or a tensor.
        others: name = (tensor, the shape it must have).

    Raises:
        ValueError: no rows; another shape, or another device than the student's logits.
    """
    if student_BC.ndim != 2 or student_BC.shape[0] == 0:
        raise ValueError(
            f"logits are a row of classes for each sample, of one sample or more: {tuple(student_BC.shape)}"
        )
    rows = student_BC.shape[0]
    if isinstance(temperature, torch.Tensor):
        if temperature.numel() not in (1, rows):
            raise ValueError(
                "a temperature is a number, one element, or one for each row of the logits\n"
                f"    temperature: {tuple(temperature.shape)}\n"
                f"    logits:      {tuple(student_BC.shape)}"
            )
        others["temperature"] = temperature, tuple(temperature.shape)
    for name, (tensor, shape) in others.items():
        if tuple(tensor.shape) != shape or tensor.device != student_BC.device:
            raise ValueError(
                f"{name}: a loss needs shape {shape} on {student_BC.device}, where the student's logits are\n"
                f"    given: {tuple(tensor.shape)} on {tensor.device}"
            )


def inverse(temperature: float | torch.Tensor, logits_BC: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """1 / T for each row, (B, 1): on processors a multiplication takes a third of a division's time."""
    if not isinstance(temperature, torch.Tensor):
        return logits_BC.new_full((1, 1), 1 / temperature, dtype=dtype).expand(len(logits_BC), 1)
    return temperature.detach().to(dtype).reciprocal().reshape(-1, 1).expand(len(logits_BC), 1)


def loss_of_rows(
    divergences: Callable[[Block, list[torch.Tensor]], "Divergence"],
    tensors: Block,
    temperature: float | torch.Tensor = 1.0,
    *,
    buffers: int = 0,
    least_blocks: int = 1,
) -> torch.Tensor:
    """The batch mean of T^2 times each row's divergence, tied to its gradients; formed block by block of rows.

    Args:
        divergences: of a block (where to write the gradient by the student's scaled logits, the block's rows of all
            `tensors`, their 1 / T (R, 1)), with scratch buffers in the gradient's shape.
        tensors: the student's logits (B, C), and what else has a row for each sample.
        temperature: as the loss's caller gave it.
        buffers: scratch buffers that `divergences` takes.
        least_blocks: to bound scratch memory.
    """
    student_BC, dtype = tensors[0], working_dtype(*tensors)
    rows = rows_of_block(student_BC, least=least_blocks)
    with torch.no_grad():
        gradient_BC = torch.empty_like(student_BC, dtype=dtype, memory_format=torch.contiguous_format)
        walked = (gradient_BC, *tensors, inverse(temperature, student_BC, dtype))
        found = [divergences(block, work) for block, work in _blocks(walked, rows, buffers)]
        differentiated = _mean_of_rows(found, gradient_BC, temperature)
    return with_gradient(differentiated, student_BC, temperature)


def _blocks(tensors: Block, rows: int, buffers: int) -> Iterator[tuple[Block, list[torch.Tensor]]]:
    """Blocks of `rows` rows of all tensors, each with scratch buffers in the shape of the first tensor's block."""
    work: list[torch.Tensor] = []
    for block in zip(*(tensor.split(rows) for tensor in tensors), strict=True):
        if not work:
            work = scratch(block[0], buffers)
        elif len(block[0]) < len(work[0]):
            work = [buffer[: len(block[0])] for buffer in work]
        yield block, work


def wants_gradient(temperature: float | torch.Tensor) -> bool:
    """Whether somebody will ask for the temperature's gradient."""
    return isinstance(temperature, torch.Tensor) and temperature.requires_grad and torch.is_grad_enabled()


def _mean_of_rows(
    blocks: list["Divergence"], gradient_BC: torch.Tensor, temperature: float | torch.Tensor
) -> Differentiated:
    """The batch mean of T^2 value, with its gradients.

    Args:
        blocks: divergences of all rows, with brackets where the temperature's gradient is wanted.
        gradient_BC: gradient of each row's divergence with respect to its scaled logits.
        temperature: as the caller gave it.
    """
    value_B = torch.cat([block.value_R for block in blocks])
    brackets = [block.bracket_R for block in blocks if block.bracket_R is not None]
    rows = len(value_B)
    if not isinstance(temperature, torch.Tensor):
        scale_B1 = value_B.new_full((1, 1), temperature / rows)
        return Differentiated(value_B.mean() * temperature**2, gradient_BC, scale_B1)
    scale_B = temperature.detach().to(value_B.dtype).reshape(-1).expand(rows)
    loss, scale_B1 = (scale_B.square() * value_B).mean(), (scale_B / rows).unsqueeze(1)
    if not brackets:
        return Differentiated(loss, gradient_BC, scale_B1)
    slope_B = scale_B * torch.cat(brackets)
    slope = slope_B / rows if temperature.numel() == rows else slope_B.mean()
    return Differentiated(loss, gradient_BC, scale_B1, slope.reshape(temperature.shape))


def scaled_logits(logits_RC: torch.Tensor, inverse_R1: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """(logits - row maximum) / T, written to `out`."""
    return torch.sub(logits_RC, logits_RC.amax(1, keepdim=True).to(out.dtype), out=out).mul_(inverse_R1)


@dataclass(frozen=True)
class Teacher:
    """The teacher's side, kept where the temperature's gradient is wanted.

    Attributes:
        b_RC: scaled logits.
        mean_R: E_p[b].
    """

    b_RC: torch.Tensor
    mean_R: torch.Tensor


@dataclass(frozen=True)
class Softened:
    """Two softened rows, in buffers of the caller.

    Attributes:
        p_RC: the teacher's probabilities.
        q_RC: the student's.
        x_RC: log(p / q).
        greatest_p_R1: exp(0) / sum exp(b).
        greatest_q_R1: exp(0) / sum exp(a).
        teacher: its scaled logits and their mean; None where they were given up for x.
    """

    p_RC: torch.Tensor
    q_RC: torch.Tensor
    x_RC: torch.Tensor
    greatest_p_R1: torch.Tensor
    greatest_q_R1: torch.Tensor
    teacher: Teacher | None

    def log_normalisers(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Log sum exp(b) and log sum exp(a), (R, 1) each."""
        return -self.greatest_p_R1.log(), -self.greatest_q_R1.log()


def soften(a_RC: torch.Tensor, b_RC: torch.Tensor, p_RC: torch.Tensor, x_RC: torch.Tensor | None = None) -> Softened:
    """Softmax of both: `a_RC` becomes q. The greatest element of each row must be 0.

    Args:
        a_RC: the student's scaled logits.
        b_RC: the teacher's.
        p_RC: where p goes.
        x_RC: where x goes; None to overwrite `b_RC`.
    """
    torch.softmax(b_RC, 1, out=p_RC)
    teacher = None
    if x_RC is None:
        x_RC = b_RC.sub_(a_RC)
    else:
        teacher = Teacher(b_RC, torch.mul(p_RC, b_RC, out=x_RC).sum(1))
        torch.sub(b_RC, a_RC, out=x_RC)
    q_RC = torch.softmax(a_RC, 1, out=a_RC)
    greatest_p_R1, greatest_q_R1 = p_RC.amax(1, keepdim=True), q_RC.amax(1, keepdim=True)
    x_RC.add_((greatest_p_R1 / greatest_q_R1).log_())
    return Softened(p_RC, q_RC, x_RC, greatest_p_R1, greatest_q_R1, teacher)


@dataclass(frozen=True)
class Divergence:
    """KL(p || q) of each row.

    Attributes:
        value_R: the divergence.
        bracket_R: d(T^2 KL)/dT divided by T; None where not asked for.
    """

    value_R: torch.Tensor
    bracket_R: torch.Tensor | None


@dataclass(frozen=True)
class Surplus:
    """What the series lacks where p sums to more than q.

    Attributes:
        value: sum p - sum q.
        bracket_R: its part of the bracket; None where that is not wanted.
    """

    value: float
    bracket_R: torch.Tensor | None


def divergence(
    p_RC: torch.Tensor,
    x_RC: torch.Tensor,
    difference_RC: torch.Tensor,
    teacher: Teacher | None = None,
    surplus: Surplus | None = None,
) -> Divergence:
    """sum_c w; `p_RC` and `x_RC` are destroyed.

    Args:
        p_RC: the teacher's weights.
        x_RC: log(p / q).
        difference_RC: q - p, or with a surplus the multiple of q that sums to as much as p, less p.
        teacher: where the temperature's gradient is wanted.
        surplus: where p sums to more than q.

    d(T^2 KL)/dT = T sum_c [(2 - beta) w + x (q - p)]. It equals
    2 T KL + E_p[z_s] - E_q[z_s] - Cov_p(z_t, z_t - z_s) / T, rearranged so that large terms do not cancel.
    """
    w_RC = torch.addcmul(difference_RC, p_RC, x_RC, out=p_RC)
    value_R = w_RC.sum(1)
    nearly_R = _nearly_equal(value_R, x_RC)
    series = None if nearly_R is None else _with_surplus(_series(w_RC - difference_RC, x_RC, teacher), surplus)
    bracket_R = None
    if teacher is not None:
        rest_RC = x_RC.mul_(difference_RC).addcmul_(w_RC, teacher.b_RC, value=-1)
        bracket_R = (2 + teacher.mean_R) * value_R + rest_RC.sum(1)
    if nearly_R is None or series is None:
        return Divergence(value_R, bracket_R)
    if bracket_R is not None and series.bracket_R is not None:
        bracket_R = torch.where(nearly_R, series.bracket_R, bracket_R)
    return Divergence(torch.where(nearly_R, series.value_R, value_R), bracket_R)


def _nearly_equal(value_R: torch.Tensor, x_RC: torch.Tensor) -> torch.Tensor | None:
    """Which rows want the series; None for none, which only the host's own results may be asked without waiting."""
    if eager_on_processor(value_R) and float(value_R.amin()) > _NEARLY_EQUAL_KL:
        return None
    nearly_R = torch.maximum(x_RC.amax(1), -x_RC.amin(1)) < _NEARLY_EQUAL[x_RC.dtype]
    return None if eager_on_processor(value_R) and not bool(nearly_R.any()) else nearly_R


def _with_surplus(series: Divergence, surplus: Surplus | None) -> Divergence:
    if surplus is None:
        return series
    bracket_R = None
    if series.bracket_R is not None and surplus.bracket_R is not None:
        bracket_R = series.bracket_R + surplus.bracket_R
    return Divergence(series.value_R + surplus.value, bracket_R)


def _series(px_RC: torch.Tensor, x_RC: torch.Tensor, teacher: Teacher | None) -> Divergence:
    """Value and bracket for small x: sums of p phi and of p (chi - beta phi).

    phi = e^-x - 1 + x and chi = (2 + x) e^-x - 2 + x.
    """
    px2_RC = px_RC.mul_(x_RC)
    phi_RC = _polynomial(x_RC, _PHI).mul_(px2_RC)
    value_R = phi_RC.sum(1)
    if teacher is None:
        return Divergence(value_R, None)
    weighted_R = phi_RC.mul_(teacher.b_RC).sum(1) - teacher.mean_R * value_R
    return Divergence(value_R, _polynomial(x_RC, _CHI).mul_(x_RC).mul_(px2_RC).sum(1) - weighted_R)


def _polynomial(x_RC: torch.Tensor, coefficients: tuple[float, ...]) -> torch.Tensor:
    """By Horner's rule, lowest coefficient first."""
    value_RC = x_RC * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        value_RC.add_(coefficient).mul_(x_RC)
    return value_RC.add_(coefficients[0])
