"""What a vector of a method on logits or embeddings gives, and the loss that the engine makes of it.

A vector's activations are leaves that stand in for the student; whole losses are composed by the engine's `Distiller`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pipeline.methods.base import Method, MethodInput, Setting
from torch import Tensor, nn
from vector_problem import NUMERICS, Leaves, Meta, Vector
from vector_tools import check, leaf, tensor

from pipeline.devices.world import World
from pipeline.engine.distiller import Distiller
from pipeline.models.outputs import Outputs

__all__ = ["Meta", "Vector"]


ALONE = World(0, 1, torch.device("cpu"), 1)
EMBEDDINGS = ("f_{}", "pooled_{}", "feat_{}.4")


@dataclass
class Problem:
    """What a vector gives to a method; `leaves` are the tensors with gradient by their name in the vector."""

    batch: MethodInput
    leaves: dict[str, Tensor]
    head: tuple[Tensor, Tensor] | None

    def setting(self, **known: Any) -> Setting:
        student, teacher = self.batch.student, self.batch.taught
        return Setting(
            student_dim=1 if student.embedding is None else student.embedding.shape[1],
            teacher_dim=None if teacher.embedding is None else teacher.embedding.shape[1],
            num_classes=student.logits.shape[1],
            student_maps={name: tuple(value.shape[1:]) for name, value in student.features.items()},
            teacher_maps={name: tuple(value.shape[1:]) for name, value in teacher.features.items()},
            micro_batch=len(self.batch.labels),
            head=self.head,
            **known,
        )

    def check_leaves(self, vector: Vector, prefix: str = "grad.") -> None:
        for name in vector:
            if name.startswith(f"{prefix}in."):
                short = name.removeprefix(f"{prefix}in.")
                check(vector[name], self.leaves[short].grad, f"gradient of {short}")


class Fixed(nn.Module):
    """Gives the vector's samples to compare with, or its raw temperature, in the place of our own."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self._value = value

    def forward(self, *_: object) -> Tensor:
        return self._value


def problem_of(vector: Vector, *, epoch: int = 0, inputs: str = "in.") -> Problem:
    """The maps "feat_s.1" to ".3" of whole loops are "stage1" to "stage3"; "feat_s.4" is their embedding."""
    leaves = {
        name.removeprefix(inputs): leaf(vector[name])
        for name in vector
        if name.startswith(inputs) and np.issubdtype(vector[name].dtype, np.floating)
    }
    embedding = next((leaves[form.format("s")] for form in EMBEDDINGS if form.format("s") in leaves), None)
    first = leaves.get("logit_s", embedding if embedding is not None else leaves.get("feat_s"))
    assert first is not None
    outputs = {}
    for role in "st":
        embedding = next((leaves[form.format(role)] for form in EMBEDDINGS if form.format(role) in leaves), None)
        features = {f"stage{k}": leaves[f"feat_{role}.{k}"] for k in (1, 2, 3) if f"feat_{role}.{k}" in leaves}
        if f"feat_{role}" in leaves:  # SRRL's maps; what it reads of the teacher's is their mean
            features = {"stage4": leaves[f"feat_{role}"]}
            embedding = features["stage4"].mean(dim=(2, 3))
        logits = leaves.get(f"logit_{role}", torch.zeros(len(first), 2, dtype=first.dtype))
        outputs[role] = Outputs(logits, embedding, features)
    teacher = _detached(outputs["t"])
    labels = tensor(vector["in.target"]) if "in.target" in vector else torch.zeros(len(first), dtype=torch.int64)
    ids = next((tensor(vector[inputs + name]) for name in ("idx", "index") if inputs + name in vector), labels)
    head = None
    if "in.cls_t.weight" in vector:
        head = (tensor(vector["in.cls_t.weight"]), tensor(vector["in.cls_t.bias"]))
    return Problem(MethodInput(outputs["s"], teacher, labels, ids, epoch), leaves, head)


def prepare(method: Method, problem: Problem, **known: Any) -> None:
    """Build the method in the vector's precision."""
    method.build(problem.setting(**known))
    method.to(problem.batch.taught.logits.dtype)


def at_own_temperature(method: Method, problem: Problem) -> MethodInput:
    return replace(problem.batch, temperature=method.temperature(problem.batch))


def total(method: Method, problem: Problem) -> dict[str, Tensor]:
    """The whole loss and its terms as the engine composes them, with its gradients."""
    batch = problem.batch
    distiller = Distiller(Leaves(batch.student), method, NUMERICS, compiled=False)  # type: ignore[arg-type]
    images = torch.zeros(len(batch.labels), 3, 1, 1)
    terms = distiller(images, batch.labels, batch.ids, batch.teacher, batch.epoch)
    terms["loss"].backward()
    return terms


def check_terms(vector: Vector, method: Method, terms: dict[str, Tensor]) -> None:
    """Compare the loss and, where the vector has them, its weighted parts."""
    check(vector["out.loss"], terms["loss"], "loss")
    weights = method.weights
    if "out.loss_ce" in vector:
        check(vector["out.loss_ce"], weights.ce * terms["ce"], "loss_ce")
    if "out.loss_kd" in vector:
        own = weights.method * terms["method"] if "method" in terms else weights.kd * terms["kd"]
        check(vector["out.loss_kd"], own, "loss_kd")


def check_divergence(vector: Vector, method: Method) -> None:
    problem = problem_of(vector)
    loss = method.divergence(at_own_temperature(method, problem))
    loss.backward()
    check(vector["out.loss"], loss, "loss")
    problem.check_leaves(vector)


def check_own_term(vector: Vector, method: Method) -> Problem:
    problem = problem_of(vector)
    prepare(method, problem)
    term = method(at_own_temperature(method, problem))
    assert term is not None
    term.backward()
    check(vector["out.loss"], term, "loss")
    problem.check_leaves(vector)
    return problem


def check_total(vector: Vector, method: Method) -> None:
    problem = problem_of(vector)
    prepare(method, problem)
    check_terms(vector, method, total(method, problem))
    problem.check_leaves(vector)


def _detached(outputs: Outputs) -> Outputs:
    embedding = None if outputs.embedding is None else outputs.embedding.detach()
    features = {name: value.detach() for name, value in outputs.features.items()}
    return Outputs(outputs.logits.detach(), embedding, features)
