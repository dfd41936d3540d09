"""A vector of feature maps as a problem for a method, solved by the engine's own composition.

A vector's activations are leaves: they stand in for the student, everything after them is what trains. Taps are named
by the vector's numbers, "stage0" is whatever it calls 0.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pipeline.methods.base import Method, MethodInput, Setting
from torch import Tensor, nn
from vector_tools import check, check_after, check_gradients, leaf, load, sgd_step, tensor

from pipeline.engine.distiller import Distiller, StudentNumerics
from pipeline.models.outputs import Outputs

Vector = dict[str, np.ndarray]
Meta = dict[str, Any]

NUMERICS = StudentNumerics(torch.device("cpu"), amp="off", label_smoothing=0.0)


@dataclass
class Problem:
    """What a vector gives to a method; `leaves` are the tensors with gradient by their name in the vector."""

    student: Outputs
    teacher: Outputs
    labels: Tensor
    leaves: dict[str, Tensor] = field(default_factory=dict)

    def setting(self, **known: Any) -> Setting:
        student, teacher = self.student.embedding, self.teacher.embedding
        known.setdefault("student_dim", 1 if student is None else student.shape[1])
        known.setdefault("teacher_dim", None if teacher is None else teacher.shape[1])
        return Setting(
            num_classes=self.student.logits.shape[1],
            student_maps={name: tuple(value.shape[1:]) for name, value in self.student.features.items()},
            teacher_maps={name: tuple(value.shape[1:]) for name, value in self.teacher.features.items()},
            micro_batch=len(self.labels),
            **known,
        )

    def batch(self) -> MethodInput:
        return MethodInput(self.student, self.teacher, self.labels, self.labels, epoch=0)

    def check_leaves(self, vector: Vector) -> None:
        for name in vector:
            if name.startswith("grad.in."):
                short = name.removeprefix("grad.in.")
                check(vector[name], self.leaves[short].grad, f"gradient of {short}")


class Leaves(nn.Module):
    """Gives the vector's activations, whatever the images."""

    def __init__(self, outputs: Outputs) -> None:
        super().__init__()
        self._outputs = outputs

    def forward(self, images: Tensor) -> Outputs:
        return self._outputs


def numbers(vector: Vector, kind: str) -> list[int]:
    found = [re.fullmatch(rf"in\.{kind}\.(\d+)", name) for name in vector]
    return sorted(int(match[1]) for match in found if match)


def problem_of(vector: Vector, *, kind: str = "feat", rectified: bool = False) -> Problem:
    """The vector's maps as taps "stage0", "stage1", ...; a lone map is "stage0".

    Args:
        vector: the arrays.
        kind: "feat", or "preact" before the ReLU: what the vector calls its maps.
        rectified: take the ReLU of those arrays for leaves, "feat" in the gradients, as mdistiller's code does.
    """
    student, leaves = _side(vector, "s", kind, rectified)
    teacher, _ = _side(vector, "t", kind, rectified)
    labels = tensor(vector["in.target"]) if "in.target" in vector else torch.zeros(len(student.logits)).long()
    return Problem(student, _detached(teacher), labels, leaves)


def _side(vector: Vector, role: str, kind: str, rectified: bool) -> tuple[Outputs, dict[str, Tensor]]:
    """The outputs of one network, and their leaves by the names that gradients have in the vector."""
    stem = f"{kind}_{role}"
    arrays = {f"stage{k}": vector[f"in.{stem}.{k}"] for k in numbers(vector, stem)} or {"stage0": vector[f"in.{stem}"]}
    features = {name: leaf(np.maximum(array, 0) if rectified else array) for name, array in arrays.items()}
    shown = f"feat_{role}" if rectified else stem
    leaves = {
        shown if f"in.{stem}" in vector else name.replace("stage", f"{shown}."): v for name, v in features.items()
    }
    last = list(features)[-1]  # the loops list the pooled embedding behind the maps
    embedding = features.pop(last) if features[last].ndim == 2 else _given(vector, f"pooled_{role}", leaves)
    logits = _given(vector, f"logit_{role}", leaves)
    none = torch.zeros(len(features["stage0"]), 2, dtype=torch.float64)
    return Outputs(none if logits is None else logits, embedding, features), leaves


def _given(vector: Vector, name: str, leaves: dict[str, Tensor]) -> Tensor | None:
    if f"in.{name}" in vector:
        leaves[name] = leaf(vector[f"in.{name}"])
    return leaves.get(name)


def total(method: Method, problem: Problem) -> dict[str, Tensor]:
    """The whole loss and its terms as the engine composes it, with its gradients."""
    distiller = Distiller(Leaves(problem.student), method, NUMERICS, compiled=False)  # type: ignore[arg-type]
    images = torch.zeros(len(problem.labels), 3, 1, 1)
    terms: dict[str, Tensor] = distiller(images, problem.labels, problem.labels, problem.teacher, 0)
    terms["loss"].backward()
    return terms


def own_term(method: Method, problem: Problem) -> dict[str, Tensor]:
    """The method's term alone, with its gradients."""
    term = method(problem.batch())
    assert term is not None
    term.backward()
    return {"loss": term}


def finish(
    vector: Vector, meta: Meta, method: Method, problem: Problem, terms: dict[str, Tensor], roles: dict[str, str]
) -> None:
    """Compare the loss, its parts, every gradient, and the state after the loop's step or after the forward pass."""
    check(vector["out.loss"], terms["loss"], "loss")
    for name in ("out.ce", "out.loss_ce"):
        if name in vector:
            check(vector[name], terms["ce"], "cross-entropy")
    if "out.loss_kd" in vector:
        check(vector["out.loss_kd"], method.weights.method * terms["method"], "weighted term")
    if "out.loss_distill_sum" in vector:
        check(vector["out.loss_distill_sum"], terms["method"] * len(problem.labels), "sum over the batch")
    problem.check_leaves(vector)
    check_gradients(method, vector, roles)
    if "learning_rate" in meta.get("hp", {}) and roles:
        sgd_step(method.parameters(), meta["hp"])
    check_after(method, vector, roles)


def ready(method: Method, problem: Problem, vector: Vector, roles: dict[str, str], **known: Any) -> Any:
    """Build the method for the problem, in float64, with the vector's parameters."""
    method.build(problem.setting(**known))
    method.double()
    load(method, vector, roles)
    return method


def _detached(outputs: Outputs) -> Outputs:
    embedding = None if outputs.embedding is None else outputs.embedding.detach()
    return Outputs(outputs.logits.detach(), embedding, {k: v.detach() for k, v in outputs.features.items()})
