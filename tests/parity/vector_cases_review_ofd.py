"""Adapters of the vectors of ReviewKD and OFD."""

import torch
from torch import Tensor
from torchvision import models
from vector_problem import Meta, Problem, Vector, finish, numbers, problem_of, ready, total
from vector_tools import check, leaf, tensor

from pipeline.methods.ofd import OFD, margins
from pipeline.methods.reviewkd import ReviewKD, context_loss
from pipeline.models.families.mobilenet_v1 import mobilenet_v1
from pipeline.models.network import Network
from pipeline.models.outputs import Outputs


def reviewkd_hcl(vector: Vector, meta: Meta) -> None:
    levels = numbers(vector, "f_s")
    students = {level: leaf(vector[f"in.f_s.{level}"]) for level in levels}
    loss = sum(context_loss(students[level], tensor(vector[f"in.f_t.{level}"])) for level in levels)
    loss.backward()
    check(vector["out.loss"], loss, "loss")
    for level in levels:
        check(vector[f"grad.in.f_s.{level}"], students[level].grad, f"gradient of level {level}")


def reviewkd_official(vector: Vector, meta: Meta) -> None:
    hp, problem = meta["hp"], problem_of(vector)
    for outputs in (problem.student, problem.teacher):  # the last "map" is the pooled embedding
        outputs.embedding = outputs.features.pop("stage4").flatten(1)
    method = ReviewKD(
        weight=hp["review_kd_loss_weight"], stages=tuple(problem.student.features), mid_channels=hp["mid_channel"]
    )
    roles = _reviewkd_roles(5)
    method = ready(method, problem, vector, roles)
    finish(vector, meta, method, problem, total(method, problem), roles)


def reviewkd_mdistiller(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]["REVIEWKD"]
    pre = hp["STU_PREACT"]
    problem = problem_of(vector, kind="preact", rectified=not pre)
    teacher = problem_of(vector, kind="preact").teacher
    problem.teacher = _with_suffix(teacher)  # before the ReLU for every student
    if pre:
        problem.student = _with_suffix(problem.student)
    stages = tuple(name.removesuffix(".pre") for name in problem.student.features if not name.startswith("stage0"))
    method = ReviewKD(
        ce=hp["CE_WEIGHT"],
        weight=hp["REVIEWKD_WEIGHT"],
        stages=stages,
        student_maps="pre" if pre else "post",
        teacher_maps="pre",
        mid_channels=hp["MAX_MID_CHANNEL"],
        warmup_epochs=hp["WARMUP_EPOCHS"],
        first_epoch=1,
    )
    roles = _reviewkd_roles(len(stages) + 1)
    method = ready(method, problem, vector, roles)
    finish(vector, meta, method, problem, total(method, problem), roles)


def reviewkd_inplace_relu(vector: Vector, meta: Meta) -> None:
    """The authors' "pre-ReLU" maps of ResNets are rectified; our taps are what they are called."""
    recorded = vector["out.min_per_feature"]
    assert (recorded[:3] >= 0).all()
    assert (recorded[3, :4] < 0).all()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for model in (models.get_model("resnet18", num_classes=5), mobilenet_v1(num_classes=5)):
        taps = [name for name in Network(model).tap_names() if name.startswith("stage")]
        maps = Network(model, taps=taps).eval()(images).features
        for name, values in maps.items():
            assert (values.min() < 0) == name.endswith(".pre"), name


def ofd_official(vector: Vector, meta: Meta) -> None:
    problem = problem_of(vector)
    _ofd(
        vector,
        meta,
        problem,
        "Connectors",
        range(len(problem.student.features)),
        ce=1.0,
        weight=1 / meta["hp"]["scale"],
    )


def ofd_mdistiller(vector: Vector, meta: Meta) -> None:
    weights = meta["hp"]["OFD"]["LOSS"]
    problem = problem_of(vector, kind="preact")
    options = {"ce": weights["CE_WEIGHT"], "weight": weights["FEAT_WEIGHT"]}
    _ofd(vector, meta, problem, "connectors.connectors", range(1, 4), **options)


def margin_relu(vector: Vector, meta: Meta) -> None:
    """The loss at the vector's margins; its code made them before it loaded the teacher, ours from the loaded one."""
    problem = problem_of(vector)
    _ofd(vector, meta, problem, "model_kd.Connectors", range(len(problem.student.features)), ce=1.0, weight=1e-3)


def ofd_margin_sweep(vector: Vector, meta: Meta) -> None:
    found = margins(tensor(vector["in.weight"]), tensor(vector["in.bias"]))
    check(vector["out.margin"], found, "margins")
    limits = margins(torch.zeros(3), torch.tensor([-2.0, 0.0, 2.0]))
    torch.testing.assert_close(limits, torch.tensor([-2.0, 0.0, 0.0]))


def _ofd(vector: Vector, meta: Meta, problem: Problem, prefix: str, numbers_: range, **weights: float) -> None:
    problem.student, problem.teacher = _with_suffix(problem.student), _with_suffix(problem.teacher)
    norms = {f"stage{number}.pre": _norm(vector, problem, place, number) for place, number in enumerate(numbers_)}
    method = OFD(**weights, stages=tuple(f"stage{number}" for number in numbers_))
    roles = {f"{prefix}.{place}": f"connectors.{place}" for place in range(len(norms))}
    method = ready(method, problem, vector, roles, teacher_norms=norms)
    for place in range(len(norms)):
        margin = method.get_buffer(f"margin{place}")
        if f"in.margin.{place}" in vector:
            margin.copy_(tensor(vector[f"in.margin.{place}"]))
        else:
            check(vector[f"out.margin.{place}"], margin, f"margin {place}")
    finish(vector, meta, method, problem, total(method, problem), roles)


def _norm(vector: Vector, problem: Problem, place: int, number: int) -> tuple[Tensor, Tensor]:
    if f"in.bn_t.{place}.weight" in vector:
        return tensor(vector[f"in.bn_t.{place}.weight"]), tensor(vector[f"in.bn_t.{place}.bias"])
    channels = problem.teacher.features[f"stage{number}.pre"].shape[1]
    return torch.ones(channels), torch.zeros(channels)


def _with_suffix(outputs: Outputs) -> Outputs:
    features = {f"{name}.pre": values for name, values in outputs.features.items()}
    return Outputs(outputs.logits, outputs.embedding, features)


def _reviewkd_roles(levels: int) -> dict[str, str]:
    parts = {"conv1": "inward", "conv2": "outward", "att_conv": "attention"}
    return {f"abfs.{n}.{theirs}": f"fusions.{n}.{own}" for n in range(levels) for theirs, own in parts.items()}


CASES = {
    "reviewkd_hcl": reviewkd_hcl,
    "reviewkd_imagenet": reviewkd_official,
    "reviewkd_mdistiller": reviewkd_mdistiller,
    "reviewkd_inplace_relu_check": reviewkd_inplace_relu,
    "ofd_official": ofd_official,
    "ofd_mdistiller": ofd_mdistiller,
    "ofd_margin_sweep": ofd_margin_sweep,
    "margin_relu": margin_relu,
}
