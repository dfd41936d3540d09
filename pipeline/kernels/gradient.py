"""Losses whose gradient is formed together with their value.

A fused loss computes its value and its gradients at once, while the logits are at hand; `with_gradient` ties them to
autograd. The backward pass is then one multiplication by the incoming gradient, without synchronisation; in place,
unless the graph is kept for a second pass. There is no second derivative: asking for one is an error.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Differentiated:
    """A loss and its gradients. Legend: B batch, C classes.

    Attributes:
        loss: scalar.
        student_BC: its gradient with respect to the student's logits, up to a factor for each row.
        scale_B1: that factor; None for 1.
        temperature: its gradient with respect to the temperature, in the temperature's shape; None where not asked for.
    """

    loss: torch.Tensor
    student_BC: torch.Tensor
    scale_B1: torch.Tensor | None = None
    temperature: torch.Tensor | None = None


def with_gradient(
    differentiated: Differentiated, student_logits_BC: torch.Tensor, temperature: float | torch.Tensor = 1.0
) -> torch.Tensor:
    """`differentiated.loss` as a function of the student's logits and of a temperature that is a tensor."""
    return _GivenGradient.apply(
        student_logits_BC,
        temperature if isinstance(temperature, torch.Tensor) else None,
        differentiated.loss,
        differentiated.student_BC,
        differentiated.scale_B1,
        differentiated.temperature,
    )


class _GivenGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student_BC: torch.Tensor,
        temperature: torch.Tensor | None,
        loss: torch.Tensor,
        gradient_BC: torch.Tensor,
        scale_B1: torch.Tensor | None,
        temperature_gradient: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(gradient_BC, scale_B1, temperature_gradient)
        ctx.student_dtype = student_BC.dtype
        ctx.temperature_dtype = None if temperature is None else temperature.dtype
        ctx.mark_dirty(loss)  # the loss itself is returned, neither copied nor a view that `+=` would refuse
        return loss

    @staticmethod
    def backward(ctx: Any, incoming: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # once_differentiable says so only where the incoming gradient wants a gradient too
            raise RuntimeError("a fused loss has no second derivative (create_graph=True): use its `reference`")
        gradient_BC, scale_B1, temperature_gradient = ctx.saved_tensors
        student = temperature = None
        if ctx.needs_input_grad[0]:
            factor = incoming if scale_B1 is None else incoming * scale_B1
            student = _product(gradient_BC, factor, ctx.student_dtype)
        if ctx.needs_input_grad[1]:
            temperature = (incoming * temperature_gradient).to(ctx.temperature_dtype)
        return student, temperature, None, None, None, None


def _product(gradient_BC: torch.Tensor, factor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Multiplied in the gradient's precision, then rounded, in one pass: a loss scale comes before half precision."""
    if dtype != gradient_BC.dtype and gradient_BC.is_cuda:
        return torch.mul(gradient_BC, factor, out=torch.empty_like(gradient_BC, dtype=dtype))
    # fresh memory is a buffer more, and on processors ten times the multiplication
    return (gradient_BC.mul_(factor) if _used_once(factor) else gradient_BC * factor).to(dtype)


def _used_once(factor: torch.Tensor) -> bool:
    """Whether this backward pass is the only reader of what the forward pass saved; not with a batch of factors."""
    if torch.compiler.is_compiling() or _keeps_graph is None or torch._C._functorch.is_legacy_batchedtensor(factor):
        return False
    return not _keeps_graph()


# not public, but what torch itself asks before it re-uses saved memory (torch/_functorch, donated buffers)
_keeps_graph: Callable[[], bool] | None = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
