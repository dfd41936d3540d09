"""A vector as a problem for a method, solved by the engine's own composition.

A vector's activations are leaves: they stand in for the student, everything after them is what trains. Taps are named
by the vector's numbers: "stage0" is what it calls 0, or its one map.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from vector_tools import Vector, leaf, tensor

from pipeline.devices.world import World
from pipeline.engine.distiller import Distiller, StudentNumerics
from pipeline.methods._shared.method import Method, MethodInput, Setting
from pipeline.models.outputs import Outputs

NUMERICS = StudentNumerics(torch.device("cpu"), amp="off", label_smoothing=0.0)
ALONE = World(0, 1, torch.device("cpu"), 1)

# the authors' names of trained parts, and ours
_OURS = {
    r"regress_s\.": "regressor.",
    r"vid\.(\d+)\.": r"gaussians.\1.",
    r"(log_scale|regressor\.)": r"gaussians.0.\1",
    r"selfa\.query_(?:weight)?(\d+)\.(linear)": r"queries.\1.\2",
    r"selfa\.key_(?:weight)?(\d+)\.(linear)": r"keys.\1.\2",
    r"selfa\.regressor(\d)(\d)\.regressor\.": r"regressors.\1.\2.",
    r"(?:conector\.Connectors|srrl\.transfer)\.": "connector.",
    r"(?:model_kd\.Connectors|connectors\.connectors|Connectors)\.": "connectors.",
    r"abfs\.(\d+)\.conv1\.": r"fusions.\1.inward.",
    r"abfs\.(\d+)\.conv2\.": r"fusions.\1.outward.",
    r"abfs\.(\d+)\.att_conv\.": r"fusions.\1.attention.",
    r"simkd\.transfer\.": "projector.",
    r"global_T": "predictor.global_T",
    r"(?:crd\.)?embed_s\.linear\.": "student_projection.",
    r"(?:crd\.)?embed_t\.linear\.": "teacher_projection.",
    r"(?:crd\.)?contrast\.memory_v1": "student_bank",
    r"(?:crd\.)?contrast\.memory_v2": "teacher_bank",
}
_HOMES = ("method.", "method.base.", "student.")
_BANK = re.compile(r"(.*)contrast\.params")
_K, _TEMPERATURE, _NORMALISERS, _MOMENTUM = 0, 1, slice(2, 4), 4  # places in contrast.params


@dataclass
class Problem:
    """What a vector gives to a method.

    Attributes:
        batch: the outputs of both networks, the teacher's detached.
        leaves: the tensors with gradient by their name in the vector.
        head: the teacher's classifier.
        prefix: of all names, in a vector of several steps: "step0.".
    """

    batch: MethodInput
    leaves: dict[str, Tensor]
    head: tuple[Tensor, Tensor] | None
    prefix: str

    @property
    def stages(self) -> tuple[str, ...]:
        """The student's maps, shallow to deep."""
        return _plain(self.batch.student)

    @property
    def teacher_stages(self) -> tuple[str, ...]:
        """The teacher's maps, shallow to deep."""
        return _plain(self.batch.taught)

    def setting(self, **known: Any) -> Setting:
        student, teacher = self.batch.student, self.batch.taught
        found = {
            "student_dim": 1 if student.embedding is None else student.embedding.shape[1],
            "teacher_dim": None if teacher.embedding is None else teacher.embedding.shape[1],
            "num_classes": student.logits.shape[1],
            "student_maps": {name: tuple(value.shape[1:]) for name, value in student.features.items()},
            "teacher_maps": {name: tuple(value.shape[1:]) for name, value in teacher.features.items()},
            "micro_batch": len(self.batch.labels),
            "head": self.head,
        }
        return Setting(**{**found, **known})

    def check_leaves(self, vector: Vector, kind: str = "grad.") -> None:
        for name, short in vector.below(f"{self.prefix}{kind}in."):
            vector.check(name, self.leaves[short].grad)


class Leaves(nn.Module):
    """Gives the vector's activations, whatever the images."""

    def __init__(self, outputs: Outputs) -> None:
        super().__init__()
        self._outputs = outputs

    def forward(self, images: Tensor) -> Outputs:
        return self._outputs


class Fixed(nn.Module):
    """Gives the vector's samples to compare with, or its raw temperature, in the place of our own."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self._value = value

    def forward(self, *_: object) -> Tensor:
        return self._value


def numbers(vector: Vector, stem: str) -> list[int]:
    """The numbers k of "stem.k", or of what is below them."""
    found = [re.match(rf"{re.escape(stem)}\.(\d+)(\.|$)", name) for name in vector]
    return sorted({int(match[1]) for match in found if match})


def problem_of(vector: Vector, *, prefix: str = "", ends_pooled: bool = False) -> Problem:
    """The vector's arrays as both networks' outputs.

    Maps called "feat" are a tap and that tap's ".pre", since some code bases call so what they take before the ReLU; of
    those called "preact", ".pre" is the array and the tap its ReLU, a leaf that gradients call "feat".

    Args:
        vector: the arrays.
        prefix: "step0." in a vector of several steps.
        ends_pooled: the list of maps ends with the pooled embedding, as in the authors' loops.
    """
    where, leaves = f"{prefix}in.", dict[str, Tensor]()
    for name, short in vector.below(where):
        if np.issubdtype(vector[name].dtype, np.floating):
            leaves[short] = leaf(vector[name])
            if short.startswith("preact_"):
                leaves[short.replace("preact", "feat")] = leaf(np.maximum(vector[name], 0))
    student, teacher = (_outputs(leaves, role, ends_pooled=ends_pooled) for role in "st")
    labels = tensor(vector[f"{where}target"]) if f"{where}target" in vector else torch.zeros(len(student.logits)).long()
    ids = next((tensor(vector[where + name]) for name in ("idx", "index") if where + name in vector), labels)
    head = (tensor(vector["in.cls_t.weight"]), tensor(vector["in.cls_t.bias"])) if "in.cls_t.weight" in vector else None
    batch = MethodInput(student, _detached(teacher), labels, ids, vector.hp.get("epoch", 1) - 1)
    return Problem(batch, leaves, head, prefix)


def ready(vector: Vector, method: Method, problem: Problem, **known: Any) -> Distiller:
    """Student and method as the engine trains them, in float64, with the vector's parameters."""
    banks = [len(vector[name]) for name, _ in vector.below("buffer.") if name.endswith("contrast.memory_v1")]
    for rows in banks:
        known.setdefault("class_counts", (rows - 1, 1))
    method.build(problem.setting(**known))
    student = method.student_network(Leaves(problem.batch.student))
    distiller = Distiller(student, method, NUMERICS, compiled=False).double()  # type: ignore[arg-type]
    if banks:
        _crd(distiller).sampler = Fixed(_contrast(vector, problem.prefix))
    _load(vector, distiller, problem.prefix)
    return distiller


def run(distiller: Distiller, problem: Problem) -> dict[str, Tensor]:
    """The whole loss and its terms, with its gradients."""
    batch = problem.batch
    images = torch.zeros(len(batch.labels), 3, 1, 1)
    terms: dict[str, Tensor] = distiller(images, batch.labels, batch.ids, batch.teacher, batch.epoch)
    terms["loss"].backward()
    return terms


def solve(vector: Vector, method: Method, problem: Problem, **known: Any) -> dict[str, Tensor]:
    """Run the method from the vector's state, and compare all that the vector has of it."""
    distiller = ready(vector, method, problem, **known)
    terms = run(distiller, problem)
    finish(vector, distiller, problem, terms)
    return terms


def finish(vector: Vector, distiller: Distiller, problem: Problem, terms: dict[str, Tensor]) -> None:
    """Compare the loss, its parts, every gradient, and the state after the loop's step or after the forward pass."""
    weights = distiller.method.weights
    own = weights.method * terms["method"] if "method" in terms else weights.kd * terms.get("kd", torch.zeros(()))
    parts = {"loss": terms["loss"], "ce": terms["ce"], "loss_ce": weights.ce * terms["ce"], "loss_kd": own}
    parts["loss_distill_sum"] = terms.get("method", own) * len(problem.batch.labels)
    for name, part in parts.items():
        vector.check_if_there(f"{problem.prefix}out.{name}", part)
    problem.check_leaves(vector)
    for name, _, parameter in _shared(vector, distiller, f"{problem.prefix}grad."):
        vector.check(name, parameter.grad)
    distiller.method.end_step(ALONE, 1)
    if "learning_rate" in vector.hp:
        rate, *decays = (vector.hp[name] for name in ("learning_rate", "momentum", "weight_decay"))
        _sgd_step([each for each in distiller.parameters() if each.requires_grad], rate, *decays)
    for kind in ("param_after.", "buffer_after."):
        check_state(vector, distiller, kind)


def _sgd_step(trained: list[nn.Parameter], rate: float, momentum: float, decay: float) -> None:
    """The original loops' update, with one rate and one weight decay for everything."""
    if trained:
        torch.optim.SGD(trained, lr=rate, momentum=momentum, weight_decay=decay).step()


def check_state(vector: Vector, distiller: Distiller, kind: str) -> None:
    """Compare what begins with `kind`: parameters, statistics, CRD's banks and normalisers."""
    for name, _, value in _shared(vector, distiller, kind):
        vector.check(name, value)
    for name, short in vector.below(kind):
        if f"nograd.{short}" in vector:  # the authors' dead branch, which ours leaves out: it must not have moved
            vector.check(name, tensor(vector[f"param.{short}"]))
        if _BANK.fullmatch(short):
            settled = tensor(vector[name])
            settled[_NORMALISERS] = _crd(distiller).normalisers
            vector.check(name, settled)


def crd_arguments(vector: Vector, hp: dict[str, Any]) -> dict[str, Any]:
    """CRD's, as its options say, or else its buffers."""
    (prefix,) = (match[1] for name, short in vector.below("buffer.") if (match := _BANK.fullmatch(short)))
    params = vector[f"buffer.{prefix}contrast.params"]
    return {
        "feature_dim": hp.get("feat_dim", vector[f"buffer.{prefix}contrast.memory_v1"].shape[1]),
        "num_negatives": hp.get("nce_k", int(params[_K])),
        "contrast_temperature": hp.get("nce_t", float(params[_TEMPERATURE])),
        "momentum": hp.get("nce_m", float(params[_MOMENTUM])),
    }


def _contrast(vector: Vector, prefix: str) -> Tensor:
    names = (f"{prefix}in.{name}" for name in ("contrast_idx", "contrastive_index"))
    return tensor(next(vector[name] for name in names if name in vector))


def _crd(distiller: Distiller) -> Any:
    return next(module for module in distiller.modules() if hasattr(module, "student_bank"))


def _outputs(leaves: dict[str, Tensor], role: str, *, ends_pooled: bool) -> Outputs:
    """One network's."""
    features: dict[str, Tensor] = {}
    for name, value in leaves.items():
        if match := re.fullmatch(rf"(feat|preact)_{role}(?:\.(\d+))?", name):
            tap = f"stage{match[2] or 0}"
            if match[1] == "feat":
                features[tap] = value
            features[f"{tap}.pre"] = leaves.get(name.replace("feat", "preact"), value)
    plain = sorted((name for name in features if not name.endswith(".pre")), key=lambda name: int(name[5:]))
    features = {name: features[name] for tap in plain for name in (tap, f"{tap}.pre")}
    embedding = leaves.get(f"pooled_{role}", leaves.get(f"f_{role}"))
    if ends_pooled:
        embedding = features.pop(plain[-1]).flatten(1)
        del features[f"{plain[-1]}.pre"]
    elif embedding is None and plain and features[plain[-1]].ndim == 4:
        embedding = features[plain[-1]].mean(dim=(2, 3))
    size = next(len(value) for name, value in leaves.items() if re.fullmatch(r"(logit|f|feat)_s(\.\d+)?", name))
    logits = leaves.get(f"logit_{role}", torch.zeros(size, 2, dtype=torch.float64))
    return Outputs(logits, embedding, features)


def _detached(outputs: Outputs) -> Outputs:
    embedding = None if outputs.embedding is None else outputs.embedding.detach()
    return Outputs(outputs.logits.detach(), embedding, {k: v.detach() for k, v in outputs.features.items()})


def _plain(outputs: Outputs) -> tuple[str, ...]:
    return tuple(name for name in outputs.features if not name.endswith(".pre"))


def _load(vector: Vector, distiller: Distiller, prefix: str) -> None:
    """Copy the vector's parameters and buffers into ours; each of ours that is trained must have got one."""
    loaded = set()
    with torch.no_grad():
        for kind in ("param.", f"{prefix}buffer."):
            for name, own, value in _shared(vector, distiller, kind):
                given = tensor(vector[name])
                assert given.numel() == value.numel(), f"{name}: {tuple(given.shape)}, {own}: {tuple(value.shape)}"
                value.copy_(given.reshape(value.shape))
                loaded.add(own)
        for name, short in vector.below(f"{prefix}buffer."):
            if _BANK.fullmatch(short):  # below 0 until the first pass has made them
                _crd(distiller).normalisers.copy_(tensor(vector[name])[_NORMALISERS].clamp_min(0))
    left = [own for own, value in distiller.named_parameters() if value.requires_grad and own not in loaded]
    assert not left or not any(vector.below("param.")), f"parameters of ours that the file has not: {left}"


def _shared(vector: Vector, distiller: Distiller, kind: str) -> Iterator[tuple[str, str, Tensor]]:
    """Each of the vector's names that begins with `kind`, with our name of the same thing, and ours."""
    own = {**dict(distiller.named_parameters()), **dict(distiller.named_buffers())}
    for name, short in vector.below(kind):
        if short.startswith("in.") or _BANK.fullmatch(short) or {f"nograd.{short}", f"out.{short}"} & vector.keys():
            continue
        ours = [f"{home}{renamed}" for home in _HOMES for renamed in _renamed(short)]
        found = next((each for each in ours if each in own), None)
        assert found is not None, f"{name} has no counterpart among {list(own)}"
        yield name, found, own[found]


def _renamed(name: str) -> list[str]:
    return [re.sub(f"^{theirs}", ours, name) for theirs, ours in _OURS.items() if re.match(theirs, name)]
