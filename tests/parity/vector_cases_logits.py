"""Adapters of the vectors of methods on logits and embeddings: KD, DKD, DIST, LSKD, PKT, SRRL; and of a schedule."""

from typing import Any

import numpy as np
import torch
from vector_outputs import (
    Meta,
    Problem,
    Vector,
    at_own_temperature,
    check_divergence,
    check_own_term,
    check_terms,
    check_total,
    prepare,
    problem_of,
    total,
)
from vector_tools import check, check_after, check_gradients, load, tensor

from pipeline.config import Optimisation
from pipeline.engine.optim import learning_rate
from pipeline.methods.dist import DIST
from pipeline.methods.dkd import DKD
from pipeline.methods.kd import KD
from pipeline.methods.lskd import LSKD
from pipeline.methods.pkt import PKT
from pipeline.methods.srrl import SRRL


def kd(vector: Vector, meta: Meta) -> None:
    check_divergence(vector, KD(temperature=meta["hp"]["T"]))


def kd_mdistiller(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]
    check_total(vector, KD(ce=hp["ce_weight"], kd=hp["kd_weight"], temperature=hp["T"]))


def kd_seed003(vector: Vector, meta: Meta) -> None:
    alpha, temperature = meta["hp"]["alpha"], meta["hp"]["T"]
    check_total(vector, KD(ce=1 - alpha, kd=alpha, temperature=temperature))


def kd_seed004(vector: Vector, meta: Meta) -> None:
    alpha, temperature = meta["hp"]["alpha"], meta["hp"]["T"]
    check_total(vector, KD(ce=alpha, kd=1 - alpha, temperature=temperature, form="cross_entropy"))


def dkd(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]
    own = {"temperature": hp["T"], "warmup_epochs": 0}
    check_own_term(vector, DKD(alpha=hp["alpha"], beta=hp["beta"], **own))
    problem = problem_of(vector)
    for name, alpha, beta in (("tckd", 1.0, 0.0), ("nckd", 0.0, 1.0)):
        method = DKD(alpha=alpha, beta=beta, **own)
        check(vector[f"out.{name}"], method(at_own_temperature(method, problem)), name)


def dkd_warmup(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]
    method = DKD(
        ce=hp["ce_weight"], alpha=hp["alpha"], beta=hp["beta"], temperature=hp["T"], warmup_epochs=hp["warmup"]
    )
    problem = problem_of(vector, epoch=hp["epoch"] - 1)
    check_terms(vector, method, total(method, problem))
    problem.check_leaves(vector)


def dkd_edge_underflow(vector: Vector, meta: Meta) -> None:
    assert not np.isfinite(vector["out.loss"])
    assert not np.isfinite(vector["grad.in.logit_s"]).all()
    hp = meta["hp"]
    method = DKD(alpha=hp["alpha"], beta=hp["beta"], temperature=hp["T"], warmup_epochs=0)
    found = []
    for dtype in (torch.float32, torch.float64):
        problem = problem_of({**vector, "in.logit_s": tensor(vector["in.logit_s"], dtype=dtype).numpy()})
        term = method(at_own_temperature(method, problem))
        term.backward()
        found.append((term.detach(), problem.leaves["logit_s"].grad))
    for single, double in zip(*found, strict=True):
        assert single is not None
        assert double is not None
        assert torch.isfinite(single).all()
        torch.testing.assert_close(single.double(), double.double(), rtol=1e-5, atol=1e-6)


def dist(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]
    check_own_term(vector, DIST(beta=hp["beta"], gamma=hp["gamma"], temperature=hp["tau"]))


def lskd(vector: Vector, meta: Meta) -> None:
    hp, shared = meta["hp"], {"ce": 0.0, "temperature": meta["hp"]["T"]}
    check_total(vector, LSKD(base="kd", base_args={"kd": hp["kd_weight"], **shared}))
    arguments = {"alpha": hp["dkd_alpha"], "beta": hp["dkd_beta"], "warmup_epochs": 0, **shared}
    with_dkd = {**vector, "out.loss": vector["out.loss_dkd"], "grad.in.logit_s": vector["grad_dkd.in.logit_s"]}
    check_total(with_dkd, LSKD(base="dkd", base_args=arguments))


def pkt(vector: Vector, meta: Meta) -> None:
    check_own_term(vector, PKT())


def pkt_mdistiller(vector: Vector, meta: Meta) -> None:
    weights = meta["hp"]["PKT"]["LOSS"]
    check_total(vector, PKT(ce=weights["CE_WEIGHT"], weight=weights["FEAT_WEIGHT"]))


def srrl(vector: Vector, roles: dict[str, str], *, feature_part: str, whole: bool, **arguments: Any) -> None:
    def prepared(**more: Any) -> tuple[SRRL, Problem]:
        method, problem = SRRL(**arguments, **more), problem_of(vector)
        prepare(method, problem)
        load(method, vector, roles)
        return method, problem

    method, problem = prepared()
    if whole:
        terms = total(method, problem)
    else:
        terms = {"loss": method(at_own_temperature(method, problem))}
        terms["loss"].backward()
    check(vector["out.loss"], terms["loss"], "loss")
    problem.check_leaves(vector)
    check_gradients(method, vector, roles)
    check_after(method, vector, roles)  # no optimiser step here: running statistics alone have moved
    own = terms["method"] if whole else terms["loss"]
    method, problem = prepared(logit_weight=0.0)
    of_features = method(problem.batch)
    check(vector[f"out.{feature_part}"], of_features, feature_part)
    check(vector["out.loss_logit"], own - of_features, "loss_logit")


def srrl_official(vector: Vector, meta: Meta) -> None:
    assert meta["hp"]["weight"] == 1
    srrl(vector, {"conector.Connectors": "connector"}, feature_part="loss_stat", whole=True, form="map")


def srrl_simkd(vector: Vector, meta: Meta) -> None:
    srrl(vector, {"srrl.transfer": "connector"}, feature_part="loss_feat", whole=False, form="pooled")


def loop_kd(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]
    ce, kd = (hp["gamma"], hp["alpha"]) if "gamma" in hp else (hp["cls"], hp["div"])
    check_total(vector, KD(ce=ce, kd=kd, temperature=hp["kd_T"]))


def loop_pkt(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]
    method = PKT(ce=hp["gamma"], kd=hp["alpha"], temperature=hp["kd_T"], weight=hp["beta"])
    check_total(vector, method)


def schedule_lr(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]
    config = Optimisation(epochs=240, lr=hp["lr"], milestones=tuple(hp["decay_epochs"]), gamma=hp["rate"])
    found = [learning_rate(config, int(epoch) - 1, 1) for epoch in vector["in.epoch"]]
    check(vector["out.lr"], torch.tensor(found, dtype=torch.float64), "learning rate")


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
    "srrl_official": srrl_official,
    "srrl_simkd": srrl_simkd,
    "loop_repdistiller_kd": loop_kd,
    "loop_simkd_kd": loop_kd,
    "loop_repdistiller_pkt": loop_pkt,
    "schedule_repdistiller_lr": schedule_lr,
}
