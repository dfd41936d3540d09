"""`topk_kl` in Triton: a row's value and student gradient in one launch, without a dense row of the teacher's."""

import torch
import triton
import triton.language as tl

from pipeline.kernels.gradient import Differentiated, with_gradient
from pipeline.kernels.rows import LEAST_TAIL
from pipeline.kernels.triton_rows import ONE_PASS, finish, load_row, outputs, pieces, shared_arguments, whole


def triton_topk_kl(student_logits_BC: torch.Tensor, *teacher: torch.Tensor, one_pass: int = ONE_PASS) -> torch.Tensor:
    """`topk_kl` for float32, float16 and bfloat16 logits; rows of more than `one_pass` classes go in pieces."""
    with torch.no_grad():
        inputs = (student_logits_BC.detach(), *teacher)
        mean, gradient_BC = _operator(*(tensor.contiguous() for tensor in inputs), one_pass)
    return with_gradient(Differentiated(mean, gradient_BC), student_logits_BC)


@torch.library.custom_op("reflux::topk_kl", mutates_args=())
def _operator(
    student_BC: torch.Tensor,
    indices_BK: torch.Tensor,
    values_BK: torch.Tensor,
    logsumexp_B: torch.Tensor,
    tail_mass_B: torch.Tensor,
    one_pass: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Batch mean; gradient by the student's logits."""
    found, kept = outputs(student_BC, moments=False), indices_BK.shape[1]
    with torch.cuda.device_of(student_BC):
        _kernel[(len(student_BC),)](
            indices=indices_BK,
            values=values_BK,
            logsumexps=logsumexp_B,
            tails=tail_mass_B,
            kept=kept,
            least_tail=LEAST_TAIL,
            KEPT=triton.next_power_of_2(kept),
            **shared_arguments(student_BC, found, one_pass),
        )
    return found[:2]


_operator.register_fake(lambda student_BC, *_: outputs(student_BC, moments=False)[:2])


@triton.jit
def _kernel(
    student,
    indices,
    values,
    logsumexps,
    tails,
    gradient,
    losses,
    mean,
    counter,
    rows,
    classes,
    kept,
    least_tail,
    KEPT: tl.constexpr,
    LANES: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK: tl.constexpr,
    ONE_PASS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    classes = classes // ALIGN * ALIGN  # the same number, and the compiler knows by what it divides
    student += row * classes
    gradient += row * classes
    k = tl.arange(0, KEPT)
    in_kept = k < kept
    chosen = tl.load(indices + row * kept + k, mask=in_kept, other=0).to(tl.int64)
    a_class = in_kept & (chosen >= 0) & (chosen < classes)
    log_kept = tl.load(values + row * kept + k, mask=in_kept, other=0.0).to(tl.float32)
    log_kept = log_kept - tl.load(logsumexps + row).to(tl.float32)
    p_kept = tl.where(in_kept, tl.exp(log_kept), 0.0)
    tail = tl.maximum(tl.load(tails + row).to(tl.float32), least_tail)
    others = tl.maximum(classes - kept, 1)
    tail = tl.where(classes > kept, tail, 0.0)
    share = tail / others
    mass = tl.sum(p_kept, axis=0) + tail
    at = tl.arange(0, BLOCK)
    if ONE_PASS:
        s = load_row(student, at, at < classes)
        greatest, total, _ = whole(s, at < classes, 1.0)
        sum_s = tl.sum(tl.where(at < classes, s - greatest, 0.0), axis=0)
        q = tl.exp(s - greatest) / total
        tl.store(gradient + at, (mass * q - share) / rows, mask=at < classes)
    else:
        greatest, total, _ = pieces(student, classes, -1, 0.0, 1.0, 1.0, BLOCK)
        sums = tl.zeros([BLOCK], tl.float32)
        for start in range(0, classes, BLOCK):
            at = start + tl.arange(0, BLOCK)
            s = load_row(student, at, at < classes)
            sums += tl.where(at < classes, s - greatest, 0.0)
            q = tl.exp(s - greatest) / total
            tl.store(gradient + at, (mass * q - share) / rows, mask=at < classes)
        sum_s = tl.sum(sums, axis=0)
    tl.debug_barrier()  # the kept classes are written over what other threads wrote
    s_kept = tl.where(
        in_kept, tl.load(student + chosen, mask=a_class, other=float("nan")).to(tl.float32) - greatest, 0.0
    )
    q_kept = tl.exp(s_kept) / total
    tl.store(gradient + chosen, (mass * q_kept - p_kept) / rows, mask=a_class)
    rest = (sum_s - tl.sum(s_kept, axis=0)) / others
    value = tl.sum(p_kept * (log_kept - s_kept), axis=0) + mass * tl.log(total)
    value += tl.where(tail > 0, tail * (tl.log(tl.maximum(share, 1e-45)) - rest), 0.0)
    finish(losses, mean, counter, value, row, rows, LANES)
