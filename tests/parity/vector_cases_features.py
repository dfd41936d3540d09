"""Adapters of the vectors of AT, SP, FitNet, VID, SemCKD, SimKD, ReviewKD and OFD."""

from typing import Any

import torch
from torch import Tensor
from torchvision import models
from vector_cases_logits import of_mdistiller
from vector_problem import Problem, finish, numbers, problem_of, ready, run, solve
from vector_tools import Vector, leaf, made, tensor

from pipeline.methods.ofd import margins
from pipeline.methods.reviewkd import context_loss
from pipeline.models.families.mobilenet_v1 import mobilenet_v1
from pipeline.models.network import Network

ALONE = {"ce": 0.0, "kd": 0.0, "weight": 1.0}  # the method's own term is the loss


def at(vector: Vector) -> None:
    vector.hp.implies("p")
    problem = problem_of(vector)
    solve(vector, made("at", stages=problem.stages, **ALONE), problem)


def at_mdistiller(vector: Vector) -> None:
    vector.hp["AT"].implies("P")
    problem = problem_of(vector)
    solve(vector, of_mdistiller(vector, "at", stages=problem.stages[1:]), problem)


def at_seed004(vector: Vector) -> None:
    problem = problem_of(vector)
    solve(vector, made("at", weight=vector.hp["beta"] / 2, stages=problem.stages, variant="seed004"), problem)


def sp(vector: Vector) -> None:
    problem = problem_of(vector)
    solve(vector, made("sp", stages=problem.stages, **ALONE), problem)
    size = len(problem.batch.labels)
    rescaled = made("sp", stages=problem.stages, reference_batch=2 * size, **ALONE)
    vector.check("out.loss", rescaled(problem.batch), times=0.5)


def sp_mdistiller(vector: Vector) -> None:
    problem = problem_of(vector)
    solve(vector, of_mdistiller(vector, "sp", stages=problem.stages[-1:]), problem)


def sp_seed004(vector: Vector) -> None:
    problem = problem_of(vector)
    solve(vector, made("sp", weight=vector.hp["gamma"], stages=problem.stages), problem)


def fitnet_variant(vector: Vector) -> str:
    return "repdistiller" if "RepDistiller" in vector.repo else "simkd"


def fitnet(vector: Vector) -> None:
    vector.hp.implies("use_relu")
    solve(vector, made("fitnet", stage="stage0", variant=fitnet_variant(vector), **ALONE), problem_of(vector))


def vid(vector: Vector) -> None:
    vector.hp.implies("init_pred_var", "eps")
    method, problem = (
        made("vid", stages=("stage0",), mid_channels=vector.hp["num_mid_channel"], **ALONE),
        problem_of(vector),
    )
    method.build(problem.setting())
    vector.check("init.log_scale", method.gaussians[0].log_scale)
    solve(vector, method, problem)


def semckd(vector: Vector) -> None:
    hp, problem = vector.hp, problem_of(vector)
    hp.implies("factor")
    batch = hp.get("input_channel", hp.get("feat_dim"))
    taps = {"stages": problem.stages, "teacher_stages": problem.teacher_stages}
    method = made("semckd", soft=hp.get("soft", 1.0), **taps, **ALONE)
    distiller = ready(vector, method, problem, micro_batch=batch)
    outputs = (problem.batch.student, problem.stages), (problem.batch.taught, problem.teacher_stages)
    maps = ([side.features[stage].detach() for stage in stages] for side, stages in outputs)
    vector.check("out.attention", method.attention(*maps))
    finish(vector, distiller, problem, run(distiller, problem))


def simkd(vector: Vector) -> None:
    problem = problem_of(vector)
    distiller = ready(vector, made("simkd", factor=vector.hp["factor"], stage="stage0", **ALONE), problem)
    seen: list[Any] = []
    distiller.student.register_forward_hook(lambda module, images, outputs: seen.append(outputs))
    finish(vector, distiller, problem, run(distiller, problem))
    vector.check("out.trans_feat_s", seen[0].features["projected"])
    vector.check("out.pred_feat_s", seen[0].logits)
    vector.check("out.pred_eval", distiller.student.eval()(torch.zeros(1)).logits)


def reviewkd_hcl(vector: Vector) -> None:
    levels = numbers(vector, "in.f_s")
    students = {level: leaf(vector[f"in.f_s.{level}"]) for level in levels}
    loss = sum(context_loss(students[level], tensor(vector[f"in.f_t.{level}"])) for level in levels)
    loss.backward()
    vector.check("out.loss", loss)
    for level in levels:
        vector.check(f"grad.in.f_s.{level}", students[level].grad)


def reviewkd_official(vector: Vector) -> None:
    hp, problem = vector.hp, problem_of(vector, ends_pooled=True)
    hp.implies("shapes")  # those of the maps
    most = problem.setting().student_dim
    assert hp["mid_channel"] <= most, f"mid_channel = {hp['mid_channel']}: ours has the student's {most} at most"
    weights = {"weight": hp["review_kd_loss_weight"], "warmup_epochs": hp["kd_warm_up"]}
    solve(vector, made("reviewkd", stages=problem.stages, mid_channels=hp["mid_channel"], **weights), problem)


def reviewkd_mdistiller(vector: Vector) -> None:
    hp, problem = vector.hp["REVIEWKD"], problem_of(vector)
    hp.implies("SHAPES", "OUT_SHAPES", "IN_CHANNELS", "OUT_CHANNELS")  # those of the maps
    hp.says_nothing("MAX_MID_CHANNEL")  # its code does not read it, and takes 512
    method = made(
        "reviewkd",
        ce=hp["CE_WEIGHT"],
        weight=hp["REVIEWKD_WEIGHT"],
        stages=problem.stages[1:],
        student_maps="pre" if hp["STU_PREACT"] else "post",
        teacher_maps="pre",
        warmup_epochs=hp["WARMUP_EPOCHS"],
        first_epoch=1,
    )
    solve(vector, method, problem)


def reviewkd_inplace_relu(vector: Vector) -> None:
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


def ofd_official(vector: Vector) -> None:
    _ofd(vector, problem_of(vector), "Connectors", ce=1.0, weight=1 / vector.hp["scale"])


def ofd_mdistiller(vector: Vector) -> None:
    hp = vector.hp["OFD"]
    hp["CONNECTOR"].implies("KERNEL_SIZE")
    weights = {"ce": hp["LOSS"]["CE_WEIGHT"], "weight": hp["LOSS"]["FEAT_WEIGHT"]}
    _ofd(vector, problem_of(vector), "connectors.connectors", **weights)


def margin_relu(vector: Vector) -> None:
    """The loss at the vector's margins; its code made them before it loaded the teacher, ours from the loaded one."""
    _ofd(vector, problem_of(vector), "model_kd.Connectors", ce=1.0, weight=vector.hp["alpha"])


def ofd_margin_sweep(vector: Vector) -> None:
    vector.check("out.margin", margins(tensor(vector["in.weight"]), tensor(vector["in.bias"])))
    limits = margins(torch.zeros(3), torch.tensor([-2.0, 0.0, 2.0]))
    torch.testing.assert_close(limits, torch.tensor([-2.0, 0.0, 0.0]))


def _ofd(vector: Vector, problem: Problem, connectors: str, **weights: float) -> None:
    """The last stages, as many as have a connector; mdistiller's code leaves out the stem."""
    places = numbers(vector, f"param.{connectors}")
    stages = problem.stages[-len(places) :]
    norms = {f"{stage}.pre": _norm(vector, problem, stage, place) for place, stage in zip(places, stages, strict=True)}
    method = made("ofd", stages=stages, **weights)
    distiller = ready(vector, method, problem, teacher_norms=norms)
    for place in places:
        margin = method.get_buffer(f"margin{place}")
        if f"in.margin.{place}" in vector:
            margin.copy_(tensor(vector[f"in.margin.{place}"]))
        else:
            vector.check(f"out.margin.{place}", margin)
    finish(vector, distiller, problem, run(distiller, problem))


def _norm(vector: Vector, problem: Problem, stage: str, place: int) -> tuple[Tensor, Tensor]:
    if f"in.bn_t.{place}.weight" in vector:
        return tensor(vector[f"in.bn_t.{place}.weight"]), tensor(vector[f"in.bn_t.{place}.bias"])
    channels = problem.batch.taught.features[stage].shape[1]
    return torch.ones(channels), torch.zeros(channels)


CASES = {
    "at_repdistiller": at,
    "at_mdistiller": at_mdistiller,
    "at_seed004": at_seed004,
    "sp_repdistiller": sp,
    "sp_mdistiller": sp_mdistiller,
    "sp_seed004": sp_seed004,
    "fitnet": fitnet,
    "vid": vid,
    "semckd": semckd,
    "simkd": simkd,
    "reviewkd_hcl": reviewkd_hcl,
    "reviewkd_imagenet": reviewkd_official,
    "reviewkd_mdistiller": reviewkd_mdistiller,
    "reviewkd_inplace_relu_check": reviewkd_inplace_relu,
    "ofd_official": ofd_official,
    "ofd_mdistiller": ofd_mdistiller,
    "ofd_margin_sweep": ofd_margin_sweep,
    "margin_relu": margin_relu,
}
