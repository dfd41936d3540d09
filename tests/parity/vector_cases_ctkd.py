"""Adapters of the vectors of CTKD: alone, over many epochs, and around every method with an optimiser step."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pipeline.methods.base import Method
from vector_cases_crd import check_banks, prepare_crd
from vector_outputs import ALONE, Fixed, Meta, Problem, Vector, check_terms, prepare, problem_of, total
from vector_tools import check, check_after, check_gradients, load, sgd_step

from pipeline.methods.crd import CRD
from pipeline.methods.ctkd import CTKD


def finish_loop(vector: Vector, hp: dict[str, Any], method: Method, problem: Problem, roles: dict[str, str]) -> None:
    check_terms(vector, method, total(method, problem))
    problem.check_leaves(vector)
    check_gradients(method, vector, roles)
    crd = next((module for module in method.modules() if isinstance(module, CRD)), None)
    method.end_step(ALONE, 1)
    if any(parameter.requires_grad for parameter in method.parameters()):
        sgd_step(method.parameters(), hp)
    check_after(method, vector, roles)
    if crd is not None:
        check_banks(crd, vector, "buffer_after.crd.")


def ctkd_loop(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]
    base = {"similarity": "sp"}.get(hp["distill"], hp["distill"])
    arguments: dict[str, Any] = {"ce": hp["gamma"], "kd": hp["alpha"]}
    if base != "kd":
        arguments["weight"] = hp["beta"]
    arguments |= {
        "dkd": {"alpha": hp["dkd_alpha"], "beta": hp["dkd_beta"]},
        "sp": {"stages": ("stage3",)},
        "vid": {"stages": ("stage1", "stage2", "stage3")},
        "srrl": {"form": "pooled"},
    }.get(base, {})
    problem = problem_of(vector, epoch=hp["epoch"] - 1)
    roles = {"global_T": "predictor.global_T", "srrl.transfer": "base.connector"}
    roles |= {f"vid.{k}": f"base.gaussians.{k}" for k in range(3)}
    if base == "crd":
        banks = vector["buffer.crd.contrast.memory_v1"]
        _, _, _, _, momentum = vector["buffer.crd.contrast.params"]
        count, temperature = vector["buffer.crd.contrast.params"][:2]
        arguments |= {"feature_dim": banks.shape[1], "num_negatives": int(count), "momentum": float(momentum)}
        arguments["contrast_temperature"] = float(temperature)
    method = CTKD(base=base, base_args=arguments, loops=10, t_start=hp["t_start"], t_end=hp["t_end"])
    assert abs(method.strength(problem.batch.epoch) - hp["lambda_"]) < 1e-12
    if base == "crd":
        roles |= prepare_crd(method.base, method, problem, vector, contrast="in.contrast_idx", prefix="crd.")
    else:
        prepare(method, problem)
    load(method, vector, roles)
    check(vector["out.temp"], method.temperature(problem.batch), "temperature")
    finish_loop(vector, hp, method, problem, roles)


def build_ctkd(vector: Vector, hp: dict[str, Any], **arguments: Any) -> tuple[CTKD, Problem]:
    method, problem = CTKD(t_start=hp["t_start"], t_end=hp["t_end"], **arguments), problem_of(vector)
    prepare(method, problem)
    if "lambda_" in hp:
        method.strength = lambda epoch: hp["lambda_"]  # type: ignore[method-assign]
    return method, problem


def ctkd_global(vector: Vector, meta: Meta, **arguments: Any) -> None:
    method, problem = build_ctkd(vector, meta["hp"], **arguments)
    load(method, vector, {"global_T": "predictor.global_T"})
    temperature = method.temperature(problem.batch)
    temperature.retain_grad()
    batch = replace(problem.batch, temperature=temperature)
    loss = method(batch) if "base" in arguments else method.divergence(batch)
    loss.backward()
    check(vector["out.temp"], temperature, "temperature")
    check(vector["out.loss"], loss, "loss")
    check(vector["grad.temp"], temperature.grad, "gradient of the temperature")
    problem.check_leaves(vector)
    check_gradients(method, vector, {"global_T": "predictor.global_T"})
    if "grad_noreversal.global_T" in vector:
        expected = vector["grad_noreversal.global_T"] * meta["hp"]["lambda_"]
        check(expected, method.predictor.global_T.grad, "reversed gradient")


def ctkd_global_dkd(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]
    assert not np.isfinite(vector["grad_torch2.global_T"]).any(), "recorded: the authors' code on torch >= 1.13"
    ctkd_global(vector, meta, base="dkd", base_args={"alpha": hp["dkd_alpha"], "beta": hp["dkd_beta"]})


def ctkd_instance(vector: Vector, meta: Meta) -> None:
    method, problem = build_ctkd(vector, meta["hp"], mode="instance")
    method.predictor = Fixed(problem.leaves["raw"][:, 0])
    temperature = method.temperature(problem.batch)
    temperature.retain_grad()
    loss = method.divergence(replace(problem.batch, temperature=temperature))
    loss.backward()
    check(vector["out.T"], temperature, "temperature")
    check(vector["out.loss"], loss, "loss")
    check(vector["out.loss_Tvec"], loss, "loss, vectorised")
    check(vector["grad.in.logit_s"], problem.leaves["logit_s"].grad, "gradient of logit_s")
    for name in ("grad.T", "grad.T_vec"):
        check(vector[name], temperature.grad, name)
    check(vector["grad.raw"], problem.leaves["raw"].grad, "gradient of raw")


def ctkd_schedule(vector: Vector, meta: Meta) -> None:
    for name in vector:
        if name.startswith("out."):
            kind, loops = name.removeprefix("out.").split("_")[0], int(name.rsplit("loops", 1)[1])
            method = CTKD(schedule=kind, loops=loops)  # type: ignore[arg-type]
            found = [method.strength(int(epoch) - 1) for epoch in vector["in.epoch"]]
            check(vector[name], torch.tensor(found, dtype=torch.float64), name)


def ctkd_trajectory(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]
    method = CTKD(
        base_args={"ce": hp["gamma"], "kd": hp["alpha"]},
        loops=hp["decay_loops"],
        t_start=hp["t_start"],
        t_end=hp["t_end"],
    )
    problem = problem_of(vector)
    prepare(method, problem)
    logits, learned = problem.leaves["logit_s"], method.predictor.global_T
    optimizer = torch.optim.SGD([logits, learned], lr=hp["lr"], momentum=0.9, weight_decay=hp["weight_decay"])
    rows: dict[str, list[float]] = {
        name: [] for name in ("temp", "global_T_before", "global_T_grad", "loss_per_step", "lambda")
    }
    for epoch in range(hp["epochs"]):
        problem.batch = replace(problem.batch, epoch=epoch)
        for _ in range(hp["iters_per_epoch"]):
            rows["temp"].append(method.temperature(problem.batch).item())
            rows["global_T_before"].append(learned.item())
            rows["lambda"].append(method.strength(epoch))
            optimizer.zero_grad()
            rows["loss_per_step"].append(total(method, problem)["loss"].item())
            rows["global_T_grad"].append(learned.grad.item())
            optimizer.step()
    for name, found in rows.items():
        check(vector[f"out.{name}"], torch.tensor(found, dtype=torch.float64), name)
    check(vector["out.logit_s_final"], logits, "final logits")


def ctkd_dkd_nan_repro(vector: Vector, meta: Meta) -> None:
    recorded = vector["out.temp_loss_gradT"]
    assert np.isnan(recorded[0, 2])
    assert np.isnan(recorded[1:]).all()
    method, problem = CTKD(base="dkd", loops=1, base_args={"ce": 1.0, "beta": 2.0}), problem_of(vector)
    prepare(method, problem)
    logits, learned = problem.leaves["logit_s"], method.predictor.global_T
    optimizer = torch.optim.SGD([logits, learned], lr=0.05, momentum=0.9, weight_decay=5e-4)
    for step in range(10):
        temperature = method.temperature(problem.batch)
        optimizer.zero_grad()
        loss = total(method, problem)["loss"]
        if step == 0:
            check(recorded[0, :1], temperature, "first temperature")
            check(recorded[0, 1:2], loss, "first loss")
        optimizer.step()
        assert torch.isfinite(loss), f"loss of step {step}"
        assert learned.grad is not None
        assert torch.isfinite(learned.grad).all()
        assert torch.isfinite(logits).all()


CASES = {
    "ctkd_loop": ctkd_loop,
    "ctkd_global_kd": ctkd_global,
    "ctkd_global_dkd": ctkd_global_dkd,
    "ctkd_instance": ctkd_instance,
    "ctkd_schedule": ctkd_schedule,
    "ctkd_trajectory": ctkd_trajectory,
    "ctkd_dkd_nan_repro": ctkd_dkd_nan_repro,
}
