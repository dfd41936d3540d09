"""Student and method in one module, so that DDP averages the gradients of every trainable part."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pipeline.devices.numerics import running_in
from pipeline.losses._shared.record import Weights
from pipeline.methods._shared.method import Method, MethodInput
from pipeline.models.network import Network
from pipeline.models.outputs import Outputs


@dataclass(frozen=True)
class StudentNumerics:
    """Precision of the student's body; its classifier and all losses run in float32."""

    device: torch.device
    amp: str
    label_smoothing: float


def term_weights(weights: Weights) -> dict[str, float]:
    """What multiplies each logged term in the loss, by the term's name; terms of weight 0 are left out.

    They hold for a whole run: what changes with the epoch (DKD's warm-up) is inside the method's own term.
    """
    every = {"ce": weights.ce, "kd": weights.kd, "method": weights.method}
    return {name: weight for name, weight in every.items() if weight}


def describe_loss(weights: Weights) -> str:
    """Such as "ce + 0.9 * kd + 1000 * method"."""
    return " + ".join(name if weight == 1 else f"{weight:g} * {name}" for name, weight in term_weights(weights).items())


class Distiller(nn.Module):
    """images, labels, teacher outputs -> the loss and its terms.

    The one module that is wrapped: torch.compile goes inside (the student), DDP outside.
    """

    def __init__(self, student: Network, method: Method[Any], numerics: StudentNumerics, *, compiled: bool) -> None:
        super().__init__()
        self.student, self.method = student, method
        self._numerics = numerics
        # kept out of the module's children: a compiled copy would double every key of the state_dict
        self._run_student = [torch.compile(student) if compiled else student]

    def forward(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        ids: torch.Tensor,
        teacher: Outputs | None,
        epoch: int,
    ) -> dict[str, torch.Tensor]:
        """Terms of one micro-batch, scalars in float32.

        Args:
            images: (B, 3, H, W) normalised float32.
            labels: (B,) int64.
            ids: (B,) int64.
            teacher: detached teacher outputs, or None.
            epoch: epoch, from 0.

        Returns:
            "loss" (with gradient), and detached: "ce", "kd" and "method" where present (unweighted), "temperature" (its
            mean) where it is learned, "top1" (share).
        """
        with running_in(self._numerics.device, self._numerics.amp):
            student: Outputs = self._run_student[0](images)
        return self.terms(student, labels, ids, teacher, epoch)

    def terms(
        self, student: Outputs, labels: torch.Tensor, ids: torch.Tensor, teacher: Outputs | None, epoch: int
    ) -> dict[str, torch.Tensor]:
        """What `forward` returns, from the student's outputs."""
        batch = MethodInput(student, teacher, labels, ids, epoch)
        batch = replace(batch, temperature=self.method.temperature(batch))
        loss, terms = self._loss(batch)
        terms = {name: term.detach() for name, term in terms.items()}
        if isinstance(batch.temperature, torch.Tensor):
            terms["temperature"] = batch.temperature.detach().mean()
        top1 = (student.logits.detach().argmax(dim=1) == labels).float().mean()
        return {"loss": loss, **terms, "top1": top1}

    def _loss(self, batch: MethodInput) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        weights, smoothing = self.method.weights, self._numerics.label_smoothing
        terms = {"ce": cross_entropy(batch.student.logits, batch.labels, label_smoothing=smoothing)}
        loss = _times(weights.ce, terms["ce"])
        if weights.kd and batch.teacher is not None:
            terms["kd"] = self.method.divergence(batch)
            loss = loss + _times(weights.kd, terms["kd"])
        own = self.method(batch)
        if own is not None:
            terms["method"] = own
            loss = loss + _times(weights.method, own)
        return loss, terms


def _times(weight: float, term: torch.Tensor) -> torch.Tensor:
    """The product, without two launches where it is the term itself."""
    return term if weight == 1 else weight * term
