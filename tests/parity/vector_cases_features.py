"""Adapters of the vectors of AT, SP, FitNet, VID, SemCKD and SimKD."""

import re

import numpy as np
import torch
from vector_problem import Leaves, Meta, Problem, Vector, finish, own_term, problem_of, ready, total
from vector_tools import check, check_after, check_gradients, load, tensor

from pipeline.methods.at import AT
from pipeline.methods.fitnet import FitNet
from pipeline.methods.semckd import SemCKD
from pipeline.methods.simkd import SimKD
from pipeline.methods.sp import SP
from pipeline.methods.vid import VID


def weights_of(meta: Meta) -> dict[str, float]:
    """ce, kd, T and the method's weight of a `loop_*` file."""
    hp = meta["hp"]
    ce, kd = (hp["gamma"], hp["alpha"]) if "gamma" in hp else (hp["cls"], hp["div"])
    return {"ce": ce, "kd": kd, "temperature": hp["kd_T"], "weight": hp["beta"]}


def stages_between(problem: Problem) -> tuple[str, ...]:
    """feats[1:-1] of the loops: not the stem, not the pooled embedding (which is no map)."""
    return tuple(name for name in problem.student.features if name != "stage0")


def at(vector: Vector, meta: Meta) -> None:
    problem = problem_of(vector)
    method = AT(stages=tuple(problem.student.features))
    finish(vector, meta, method, problem, own_term(method, problem), {})


def at_mdistiller(vector: Vector, meta: Meta) -> None:
    weights = meta["hp"]["AT"]["LOSS"]
    problem = problem_of(vector, kind="preact", rectified=True)
    method = AT(ce=weights["CE_WEIGHT"], weight=weights["FEAT_WEIGHT"], stages=stages_between(problem))
    finish(vector, meta, method, problem, total(method, problem), {})


def at_seed004(vector: Vector, meta: Meta) -> None:
    problem = problem_of(vector)
    stages = tuple(problem.student.features)
    method = AT(weight=meta["hp"]["beta"] / 2, stages=stages, variant="seed004")
    finish(vector, meta, method, problem, total(method, problem), {})


def at_loop(vector: Vector, meta: Meta) -> None:
    problem = problem_of(vector)
    method = AT(**weights_of(meta), stages=stages_between(problem))
    finish(vector, meta, method, problem, total(method, problem), {})


def sp(vector: Vector, meta: Meta) -> None:
    problem = problem_of(vector)
    method = SP(stages=("stage0",))
    finish(vector, meta, method, problem, own_term(method, problem), {})
    rescaled = SP(stages=("stage0",), reference_batch=2 * len(problem.labels))(problem.batch())
    check(vector["out.loss"] / 2, rescaled, "loss at a reference batch of twice the size")


def sp_mdistiller(vector: Vector, meta: Meta) -> None:
    weights = meta["hp"]["SP"]["LOSS"]
    problem = problem_of(vector, kind="preact", rectified=True)
    method = SP(ce=weights["CE_WEIGHT"], weight=weights["FEAT_WEIGHT"], stages=("stage3",))
    finish(vector, meta, method, problem, total(method, problem), {})


def sp_seed004(vector: Vector, meta: Meta) -> None:
    problem = problem_of(vector)
    method = SP(weight=meta["hp"]["gamma"], stages=tuple(problem.student.features))
    finish(vector, meta, method, problem, total(method, problem), {})


def sp_loop(vector: Vector, meta: Meta) -> None:
    problem = problem_of(vector)
    method = SP(**weights_of(meta), stages=("stage3",))
    finish(vector, meta, method, problem, total(method, problem), {})


def fitnet(vector: Vector, meta: Meta) -> None:
    problem, roles = problem_of(vector), {"regress_s": "regressor"}
    variant = "simkd" if "SimKD" in meta["repo"] else "repdistiller"
    method = ready(FitNet(stage="stage0", variant=variant), problem, vector, roles)
    finish(vector, meta, method, problem, own_term(method, problem), roles)


def fitnet_loop(vector: Vector, meta: Meta) -> None:
    problem, roles = problem_of(vector), {"regress_s": "regressor"}
    stage = f"stage{meta['hp']['hint_layer']}"
    method = ready(FitNet(**weights_of(meta), stage=stage), problem, vector, roles)
    finish(vector, meta, method, problem, total(method, problem), roles)


def vid(vector: Vector, meta: Meta) -> None:
    problem = problem_of(vector)
    roles = {"log_scale": "gaussians.0.log_scale", "regressor": "gaussians.0.regressor"}
    method = VID(stages=("stage0",))
    method.build(problem.setting())
    check(vector["init.log_scale"], method.gaussians[0].log_scale, "log_scale at construction")
    method = ready(method, problem, vector, roles)
    finish(vector, meta, method, problem, own_term(method, problem), roles)


def vid_loop(vector: Vector, meta: Meta) -> None:
    problem, roles = problem_of(vector), {f"vid.{number}": f"gaussians.{number}" for number in range(3)}
    method = ready(VID(**weights_of(meta), stages=stages_between(problem)), problem, vector, roles)
    finish(vector, meta, method, problem, total(method, problem), roles)


def semckd(vector: Vector, meta: Meta) -> None:
    problem, roles = problem_of(vector), _semckd_roles(vector)
    stages = tuple(problem.student.features)
    method = ready(SemCKD(stages=stages, soft=meta["hp"].get("soft", 1.0)), problem, vector, roles)
    outputs = problem.student.features, problem.teacher.features
    check(vector["out.attention"], method.attention(*([maps[s] for s in stages] for maps in outputs)), "attention")
    finish(vector, meta, method, problem, own_term(method, problem), roles)


def semckd_loop(vector: Vector, meta: Meta) -> None:
    problem, roles = problem_of(vector), _semckd_roles(vector)
    stages = stages_between(problem)
    method = ready(SemCKD(**weights_of(meta), stages=stages, soft=meta["hp"]["soft"]), problem, vector, roles)
    finish(vector, meta, method, problem, total(method, problem), roles)
    for name in vector:  # the authors' dead branch, see `Embedding`: it is never trained, and ours leaves it out
        if name.startswith("nograd."):
            dead = name.removeprefix("nograd.")
            np.testing.assert_array_equal(vector[f"param_after.{dead}"], vector[f"param.{dead}"])


def simkd(vector: Vector, meta: Meta) -> None:
    problem = problem_of(vector)
    head = (tensor(vector["in.cls_t.weight"]), tensor(vector["in.cls_t.bias"]))
    method = SimKD(factor=meta["hp"]["factor"], stage="stage0")
    method.build(problem.setting(head=head))
    student, roles = method.student_network(Leaves(problem.student)).double(), {"simkd.transfer": "projector"}
    load(student, vector, roles)
    problem.student = student(torch.zeros(1))
    check(vector["out.trans_feat_s"], problem.student.features["projected"], "projected map")
    check(vector["out.pred_feat_s"], problem.student.logits.detach(), "logits in training")
    check(vector["out.loss"], own_term(method, problem)["loss"], "loss")
    problem.check_leaves(vector)
    check_gradients(student, vector, roles)
    check_after(student, vector, roles)
    check(vector["out.pred_eval"], student.eval()(torch.zeros(1)).logits.detach(), "logits in evaluation")


def _semckd_roles(vector: Vector) -> dict[str, str]:
    roles = {}
    for name in vector:
        stem = name.removeprefix("param.selfa.")
        if match := re.match(r"(query_|key_|query_weight|key_weight)(\d)\.(linear\d)\.weight", stem):
            own = "queries" if match[1].startswith("query") else "keys"
            roles[f"selfa.{match[1]}{match[2]}.{match[3]}"] = f"{own}.{match[2]}.{match[3]}"
        if match := re.match(r"regressor(\d)(\d)\.", stem):
            roles[f"selfa.regressor{match[1]}{match[2]}.regressor"] = f"regressors.{match[1]}.{match[2]}"
    return roles


CASES = {
    "at_repdistiller": at,
    "at_mdistiller": at_mdistiller,
    "at_seed004": at_seed004,
    "loop_repdistiller_at": at_loop,
    "sp_repdistiller": sp,
    "sp_mdistiller": sp_mdistiller,
    "sp_seed004": sp_seed004,
    "loop_simkd_sp": sp_loop,
    "fitnet": fitnet,
    "loop_repdistiller_hint": fitnet_loop,
    "loop_simkd_hint": fitnet_loop,
    "vid": vid,
    "loop_simkd_vid": vid_loop,
    "semckd": semckd,
    "loop_simkd_semckd": semckd_loop,
    "simkd": simkd,
}
