"""Adapters of the vectors of whole loops, RepDistiller's, SimKD's and CTKD's, of one step or many; and of CTKD alone.

What a loop trains by is its option `distill`.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vector_cases_features import fitnet_variant
from vector_problem import Fixed, Problem, crd_arguments, finish, numbers, problem_of, ready, run, solve
from vector_tools import Vector, made

from pipeline.engine.distiller import Distiller
from pipeline.methods._shared.method import Method

_MOST_LOOPS = 100
_SAYS_NOTHING = ("print_freq", "gpu_id", "gpu", "multiprocessing_distributed", "batch_size", "distill")
# each is read where `distill` is one of these, or in no branch of the loop
_READ_BY = {
    "hint_layer": ("hint",),
    "soft": ("semckd",),
    "factor": ("simkd",),
    "dkd_alpha": ("dkd",),
    "dkd_beta": ("dkd",),
    "beta": ("hint", "attention", "similarity", "pkt", "vid", "crd", "srrl", "semckd", "simkd", "dkd"),
}


def base_of(vector: Vector, problem: Problem, *, learned: bool = False) -> tuple[str, dict[str, Any]]:
    """Our method of the loop's, with its hyper-parameters; where the temperature is learned, without one."""
    hp = vector.hp
    distill = hp["distill"]
    hp.says_nothing(*_SAYS_NOTHING, *(name for name, read_by in _READ_BY.items() if distill not in read_by))
    ce, kd = ("gamma", "alpha") if "gamma" in hp else ("cls", "div")
    weights = {"ce": hp[ce], "kd": hp[kd]}
    if not learned:
        weights["temperature"] = hp["kd_T"]
    if distill == "kd":
        return "kd", weights
    known: dict[str, Callable[[], tuple[str, dict[str, Any]]]] = {
        "hint": lambda: ("fitnet", {"stage": problem.stages[hp["hint_layer"]], "variant": fitnet_variant(vector)}),
        "attention": lambda: ("at", {"stages": problem.stages[1:]}),
        "similarity": lambda: ("sp", {"stages": problem.stages[-1:]}),
        "pkt": lambda: ("pkt", {}),
        "vid": lambda: ("vid", {"stages": problem.stages[1:], "mid_channels": _mid_channels(vector)}),
        "crd": lambda: ("crd", crd_arguments(vector, hp)),
        "srrl": lambda: ("srrl", {"form": "pooled"}),
        "semckd": lambda: (
            "semckd",
            {"stages": problem.stages[1:], "teacher_stages": problem.teacher_stages[1:], "soft": hp["soft"]},
        ),
        "simkd": lambda: ("simkd", _simkd(vector, problem, ce, kd)),
        "dkd": lambda: (
            "dkd",  # CTKD's flags, where a file leaves them at their defaults
            {"alpha": hp.get("dkd_alpha", 1.0), "beta": hp.get("dkd_beta", 2.0), "warmup_epochs": 0},
        ),
    }
    assert distill in known, f"no method of ours is distill = {distill}"
    name, own = known[distill]()
    return name, {**weights, "weight": hp.get("beta", 1.0), **own}


def _simkd(vector: Vector, problem: Problem, *of_own_logits: str) -> dict[str, Any]:
    """The loop weighs losses of logits that the student does not answer by; its pooled embeddings come from no map."""
    vector.hp.implies(*of_own_logits)
    problem.batch.taught.embedding = None
    return {"stage": problem.stages[-1], "factor": vector.hp["factor"]}


def loop(vector: Vector) -> None:
    problem = problem_of(vector, ends_pooled=True)
    name, arguments = base_of(vector, problem)
    solve(vector, made(name, **arguments), problem, **known_of(vector))


def known_of(vector: Vector) -> dict[str, Any]:
    """What the options say of the networks and the data."""
    hp = vector.hp
    names = {"s_dim": "student_dim", "t_dim": "teacher_dim"}
    known = {ours: hp[theirs] for theirs, ours in names.items() if theirs in hp}
    return known | ({"class_counts": (hp["n_data"] - 1, 1)} if "n_data" in hp else {})


def ctkd_loop(vector: Vector) -> None:
    if not vector.hp.get("have_mlp", True):  # nothing learns the temperature
        vector.hp.says_nothing("t_start", "t_end", "lambda_", "gT0")
        loop(vector)
        return
    problem = problem_of(vector, ends_pooled=True)
    vector.hp.says_nothing("kd_T", "gT0")  # what the learned one begins at is a parameter of the file
    base, arguments = base_of(vector, problem, learned=True)
    method = ctkd_of(vector, problem, base=base, base_args=arguments)
    seen = watched(method)
    solve(vector, method, problem, **known_of(vector))
    vector.check("out.temp", seen[0])


def ctkd_of(vector: Vector, problem: Problem, **arguments: Any) -> Any:
    """CTKD in the file's range of temperatures, with its strength of the reversal: by a schedule if it is on one."""
    hp = vector.hp
    own = {"t_start": hp["t_start"], "t_end": hp["t_end"], **arguments}
    if "lambda_" not in hp:
        return made("ctkd", **own)
    for loops in range(1, _MOST_LOOPS + 1):
        method = made("ctkd", loops=loops, **own)
        if math.isclose(method.strength(problem.batch.epoch), hp["lambda_"], abs_tol=1e-12):
            return method
    method.strength = lambda epoch: hp["lambda_"]
    return method


def watched(method: Method) -> list[Tensor]:
    """The list to which every temperature is added, with its gradient."""
    seen, temperature = [], method.temperature

    def keep(batch: Any) -> Tensor:
        found = temperature(batch)
        assert isinstance(found, Tensor)
        found.retain_grad()
        seen.append(found)
        return found

    method.temperature = keep  # type: ignore[method-assign]
    return seen


def ctkd_global_kd(vector: Vector) -> None:
    distiller = _ctkd_global(vector, base_args={"ce": 0.0, "kd": 1.0})
    learned: Any = distiller.method.predictor
    vector.check("grad_noreversal.global_T", learned.global_T.grad, times=vector.hp["lambda_"])


def ctkd_global_dkd(vector: Vector) -> None:
    hp = vector.hp
    assert not np.isfinite(vector["grad_torch2.global_T"]).any(), "recorded: the authors' code on torch >= 1.13"
    _ctkd_global(vector, base="dkd", base_args={"ce": 0.0, "alpha": hp["dkd_alpha"], "beta": hp["dkd_beta"]})


def _ctkd_global(vector: Vector, **arguments: Any) -> Distiller:
    problem = problem_of(vector)
    method = ctkd_of(vector, problem, **arguments)
    distiller, seen = ready(vector, method, problem), watched(method)
    finish(vector, distiller, problem, run(distiller, problem))
    vector.check("out.temp", seen[0])
    vector.check("grad.temp", seen[0].grad)
    return distiller


def ctkd_instance(vector: Vector) -> None:
    vector.hp.implies("eps")
    problem = problem_of(vector)
    method = ctkd_of(vector, problem, mode="instance", base_args={"ce": 0.0, "kd": 1.0})
    distiller, seen = ready(vector, method, problem), watched(method)
    method.predictor = Fixed(problem.leaves["raw"].flatten())
    terms = run(distiller, problem)
    problem.check_leaves(vector)
    for name, found in {
        "out.T": seen[0],
        "out.loss": terms["loss"],
        "out.loss_Tvec": terms["loss"],
        "grad.T": seen[0].grad,
        "grad.T_vec": seen[0].grad,
        "grad.raw": problem.leaves["raw"].grad,
    }.items():
        vector.check(name, found)
    vector.check("grad_noreversal.raw", problem.leaves["raw"].grad, times=vector.hp["lambda_"])


def ctkd_schedule(vector: Vector) -> None:
    for name, short in vector.below("out."):
        kind, loops = short.split("_")[0], int(short.rsplit("loops", 1)[1])
        method = made("ctkd", schedule=kind, loops=loops)
        found = [method.strength(int(epoch) - 1) for epoch in vector["in.epoch"]]
        vector.check(name, torch.tensor(found, dtype=torch.float64))


def ctkd_trajectory(vector: Vector) -> None:
    """Many steps on one batch, whose student's logits are trained with the temperature."""
    hp, problem = vector.hp, problem_of(vector, ends_pooled=bool(numbers(vector, "in.feat_s")))
    hp.says_nothing("gT0")
    base, arguments = base_of(vector, problem, learned=True)
    method = ctkd_of(vector, problem, base=base, base_args=arguments, loops=hp["decay_loops"])
    distiller = ready(vector, method, problem)
    logits, learned = problem.leaves["logit_s"], method.predictor.global_T
    learned.data.fill_(hp.get("gT0", learned.item()))
    decays = {"momentum": hp.get("momentum", 0.9), "weight_decay": hp["weight_decay"]}
    optimizer = torch.optim.SGD([logits, *method.parameters()], lr=hp["lr"], **decays)
    rows: dict[str, list[float]] = {
        name: [] for name in ("temp", "global_T_before", "global_T_grad", "loss_per_step", "lambda")
    }
    for step in range(hp["epochs"] * hp["iters_per_epoch"]):
        problem.batch = replace(problem.batch, epoch=step // hp["iters_per_epoch"])
        rows["temp"].append(method.temperature(problem.batch).item())
        rows["global_T_before"].append(learned.item())
        rows["lambda"].append(method.strength(problem.batch.epoch))
        optimizer.zero_grad()
        rows["loss_per_step"].append(run(distiller, problem)["loss"].item())
        rows["global_T_grad"].append(learned.grad.item())
        optimizer.step()
    for name, found in rows.items():
        vector.check(f"out.{name}", torch.tensor(found, dtype=torch.float64))
    vector.check("out.logit_s_final", logits)


def ctkd_dkd_nan_repro(vector: Vector) -> None:
    recorded = vector["out.temp_loss_gradT"]
    assert np.isnan(recorded[0, 2])
    assert np.isnan(recorded[1:]).all()
    method, problem = made("ctkd", base="dkd", loops=1, base_args={"ce": 1.0, "beta": 2.0}), problem_of(vector)
    distiller = ready(vector, method, problem)
    logits, learned = problem.leaves["logit_s"], method.predictor.global_T
    optimizer = torch.optim.SGD([logits, learned], lr=0.05, momentum=0.9, weight_decay=5e-4)
    for step in range(10):
        temperature = method.temperature(problem.batch)
        optimizer.zero_grad()
        loss = run(distiller, problem)["loss"]
        if step == 0:
            found = torch.stack([temperature, loss]).detach().double().numpy()
            np.testing.assert_allclose(found, recorded[0, :2], rtol=1e-8)
        optimizer.step()
        assert torch.isfinite(loss), f"loss of step {step}"
        assert torch.isfinite(learned.grad).all()
        assert torch.isfinite(logits).all()


def _mid_channels(vector: Vector) -> int | None:
    """Of all the regressions, whose authors' training takes the teacher's channels: then None."""
    stems = [f"param.vid.{number}" for number in numbers(vector, "param.vid")]
    inner = [len(vector[f"{stem}.regressor.0.weight"]) for stem in stems]
    return None if inner == [len(vector[f"{stem}.log_scale"]) for stem in stems] else inner[0]


CASES = {
    "loop_repdistiller": loop,
    "loop_simkd": loop,
    "ctkd_loop": ctkd_loop,
    "ctkd_global_kd": ctkd_global_kd,
    "ctkd_global_dkd": ctkd_global_dkd,
    "ctkd_instance": ctkd_instance,
    "ctkd_schedule": ctkd_schedule,
    "ctkd_trajectory": ctkd_trajectory,
    "ctkd_dkd_nan_repro": ctkd_dkd_nan_repro,
}
