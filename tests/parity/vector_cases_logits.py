"""Adapters of the vectors of methods on logits and embeddings: KD, DKD, DIST, LSKD, PKT, CRD, SRRL; of a schedule."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from vector_problem import check_state, crd_arguments, finish, problem_of, ready, run, solve
from vector_tools import Vector, made, tensor

from pipeline.config import Optimisation
from pipeline.engine.optim import learning_rate
from pipeline.methods._shared.method import Method


def of_mdistiller(vector: Vector, method: str, **more: Any) -> Method:
    """With the weights of an mdistiller configuration."""
    weights = vector.hp[method.upper()]["LOSS"]
    return made(method, ce=weights["CE_WEIGHT"], weight=weights["FEAT_WEIGHT"], **more)


def kd(vector: Vector) -> None:
    solve(vector, made("kd", ce=0.0, kd=1.0, temperature=vector.hp["T"]), problem_of(vector))


def kd_mdistiller(vector: Vector) -> None:
    hp = vector.hp
    solve(vector, made("kd", ce=hp["ce_weight"], kd=hp["kd_weight"], temperature=hp["T"]), problem_of(vector))


def kd_seed003(vector: Vector) -> None:
    alpha, temperature = vector.hp["alpha"], vector.hp["T"]
    solve(vector, made("kd", ce=1 - alpha, kd=alpha, temperature=temperature), problem_of(vector))


def kd_seed004(vector: Vector) -> None:
    alpha, temperature = vector.hp["alpha"], vector.hp["T"]
    method = made("kd", ce=alpha, kd=1 - alpha, temperature=temperature, form="cross_entropy")
    solve(vector, method, problem_of(vector))


def dkd(vector: Vector) -> None:
    hp = vector.hp
    shared = {"ce": 0.0, "temperature": hp["T"], "warmup_epochs": 0}
    solve(vector, made("dkd", alpha=hp["alpha"], beta=hp["beta"], **shared), problem_of(vector))
    for name, alpha, beta in (("tckd", 1.0, 0.0), ("nckd", 0.0, 1.0)):
        problem = problem_of(vector)
        terms = run(ready(vector, made("dkd", alpha=alpha, beta=beta, **shared), problem), problem)
        vector.check(f"out.{name}", terms["method"])


def dkd_warmup(vector: Vector) -> None:
    hp = vector.hp
    weights = {"ce": hp["ce_weight"], "alpha": hp["alpha"], "beta": hp["beta"]}
    solve(vector, made("dkd", temperature=hp["T"], warmup_epochs=hp["warmup"], **weights), problem_of(vector))


def dkd_edge_underflow(vector: Vector) -> None:
    assert not np.isfinite(vector["out.loss"])
    assert not np.isfinite(vector["grad.in.logit_s"]).all()
    hp = vector.hp
    method = made("dkd", alpha=hp["alpha"], beta=hp["beta"], temperature=hp["T"], warmup_epochs=0)
    found = []
    for dtype in (torch.float32, torch.float64):
        problem = problem_of(vector)
        problem.batch.student.logits = logits = tensor(vector["in.logit_s"]).to(dtype).requires_grad_()
        problem.batch.taught.logits = problem.batch.taught.logits.float()
        found.append((run(ready(vector, method, problem), problem)["method"], logits.grad))
    for single, double in zip(*found, strict=True):
        assert torch.isfinite(single).all()
        torch.testing.assert_close(single.double(), double.double(), rtol=1e-5, atol=1e-6)


def dist(vector: Vector) -> None:
    hp = vector.hp
    hp.implies("eps")
    own = {"beta": hp["beta"], "gamma": hp["gamma"], "temperature": hp["tau"]}
    solve(vector, made("dist", ce=0.0, weight=1.0, **own), problem_of(vector))


def lskd(vector: Vector) -> None:
    hp, shared = vector.hp, {"ce": 0.0, "temperature": vector.hp["T"]}
    solve(vector, made("lskd", base="kd", base_args={"kd": hp["kd_weight"], **shared}), problem_of(vector))
    arguments = {"alpha": hp["dkd_alpha"], "beta": hp["dkd_beta"], "warmup_epochs": 0, **shared}
    problem = problem_of(vector)
    terms = run(ready(vector, made("lskd", base="dkd", base_args=arguments), problem), problem)
    vector.check("out.loss_dkd", terms["loss"])
    problem.check_leaves(vector, "grad_dkd.")


def pkt(vector: Vector) -> None:
    vector.hp.implies("eps")
    solve(vector, made("pkt", ce=0.0, weight=1.0), problem_of(vector))


def pkt_mdistiller(vector: Vector) -> None:
    solve(vector, of_mdistiller(vector, "pkt"), problem_of(vector))


def crd(vector: Vector) -> None:
    """Passes without an optimiser step: each leaves the banks and normalisers with which the next begins."""
    hp = vector.hp
    hp.implies("eps")
    for step in range(hp["steps"]):
        problem = problem_of(vector, prefix=f"step{step}.")
        method = made("crd", ce=0.0, weight=1.0, **crd_arguments(vector, hp))
        distiller = ready(vector, method, problem, class_counts=(hp["n_data"] - 1, 1))
        terms = run(distiller, problem)
        finish(vector, distiller, problem, terms)
        if step == 0:
            vector.check("out.loss", terms["loss"])
        left = f"step{step + 1}." if step + 1 < hp["steps"] else "after."
        check_state(vector, distiller, f"{left}buffer.")


def crd_mdistiller(vector: Vector) -> None:
    feat, nce = vector.hp["CRD"]["FEAT"], vector.hp["CRD"]["NCE"]
    own = {"feature_dim": feat["DIM"], "num_negatives": nce["K"]}
    own |= {"contrast_temperature": nce["TEMPERATURE"], "momentum": nce["MOMENTUM"]}
    known = {"student_dim": feat["STUDENT_DIM"], "teacher_dim": feat["TEACHER_DIM"]}
    solve(vector, of_mdistiller(vector, "crd", **own), problem_of(vector), **known)


def srrl(vector: Vector, method: Callable[..., Method], feature_part: str) -> None:
    whole = solve(vector, method(), problem_of(vector))
    problem = problem_of(vector)
    features = run(ready(vector, method(logit_weight=0.0), problem), problem)
    vector.check(f"out.{feature_part}", features["method"])
    vector.check("out.loss_logit", whole["method"] - features["method"])


def srrl_official(vector: Vector) -> None:
    """Its weight is that of both parts."""
    srrl(vector, partial(made, "srrl", form="map", stage="stage0", weight=vector.hp["weight"]), "loss_stat")


def srrl_simkd(vector: Vector) -> None:
    srrl(vector, partial(made, "srrl", form="pooled", ce=0.0, weight=1.0), "loss_feat")


def schedule_lr(vector: Vector) -> None:
    hp, epochs = vector.hp, vector["in.epoch"]
    milestones = tuple(hp["decay_epochs"])
    config = Optimisation(epochs=int(epochs.max()), lr=hp["lr"], milestones=milestones, gamma=hp["rate"])
    found = [learning_rate(config, int(epoch) - 1, 1) for epoch in epochs]
    vector.check("out.lr", torch.tensor(found, dtype=torch.float64))


CASES = {
    "kd_repdistiller": kd,
    "kd_simkd": kd,
    "kd_mdistiller": kd_mdistiller,
    "kd_seed003": kd_seed003,
    "kd_seed004": kd_seed004,
    "dkd_mdistiller": dkd,
    "dkd_warmup": dkd_warmup,
    "dkd_edge_underflow": dkd_edge_underflow,
    "dist": dist,
    "lskd": lskd,
    "pkt_repdistiller": pkt,
    "pkt_mdistiller": pkt_mdistiller,
    "crd_repdistiller": crd,
    "crd_mdistiller": crd_mdistiller,
    "srrl_official": srrl_official,
    "srrl_simkd": srrl_simkd,
    "schedule_repdistiller_lr": schedule_lr,
}
