"""Adapters of the vectors of methods on logits and embeddings, KD, DKD, CTKD, DIST, LSKD, PKT, CRD, SRRL; a schedule.

A vector's activations are leaves that stand in for the student; whole losses are composed by the engine's `Distiller`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from vector_tools import check, check_after, check_gradients, leaf, load, sgd_step, tensor

from pipeline.core.config import Optimisation
from pipeline.core.dist import World
from pipeline.engine.distiller import Distiller, StudentNumerics
from pipeline.engine.optim import learning_rate
from pipeline.methods.base import Method, MethodInput, Setting
from pipeline.methods.crd import CRD
from pipeline.methods.ctkd import CTKD
from pipeline.methods.dist import DIST
from pipeline.methods.dkd import DKD
from pipeline.methods.kd import KD
from pipeline.methods.lskd import LSKD
from pipeline.methods.pkt import PKT
from pipeline.methods.srrl import SRRL
from pipeline.models.outputs import Outputs

Vector = dict[str, np.ndarray]
Meta = dict[str, Any]

NUMERICS = StudentNumerics(torch.device("cpu"), amp="off", label_smoothing=0.0)
ALONE = World(0, 1, torch.device("cpu"), 1)
EMBEDDINGS = ("f_{}", "pooled_{}", "feat_{}.4")
CRD_ROLES = {
    "embed_s.linear": "student_projection",
    "embed_t.linear": "teacher_projection",
    "contrast.memory_v1": "student_bank",
    "contrast.memory_v2": "teacher_bank",
}


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


# ---- KD, DKD, DIST, LSKD


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


# ---- PKT, SRRL, CRD


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


def prepare_crd(
    crd: CRD, owner: Method, problem: Problem, vector: Vector, *, contrast: str, prefix: str = "", state: str = ""
) -> dict[str, str]:
    """Build with the vector's banks, projections and samples to compare with; returns the roles in `owner`."""
    num_samples = len(vector[f"{state}buffer.{prefix}contrast.memory_v1"])
    prepare(owner, problem, class_counts=(num_samples - 1, 1))
    crd.sampler = Fixed(tensor(vector[contrast]))
    path = next(f"{name}." if name else "" for name, module in owner.named_modules() if module is crd)
    roles = {f"{prefix}{name}": f"{path}{own}" for name, own in CRD_ROLES.items()}
    load(owner, vector, roles)
    return roles


def check_banks(crd: CRD, vector: Vector, where: str, *, roles: dict[str, str]) -> None:
    for name, own in CRD_ROLES.items():
        if own.endswith("bank"):
            check(vector[f"{where}{name}"], getattr(crd, own), own)
    check(vector[f"{where}contrast.params"][2:4], crd.normalisers, "normalisers")


def crd_steps(vector: Vector, meta: Meta) -> None:
    """Consecutive passes without an optimiser step: banks move, the normalisers stay what the first made them."""
    hp = meta["hp"]
    method = CRD(
        feature_dim=hp["feat_dim"],
        num_negatives=hp["nce_k"],
        contrast_temperature=hp["nce_t"],
        momentum=hp["nce_m"],
    )
    for step in range(hp["steps"]):
        where = f"step{step}."
        problem = problem_of(vector, inputs=f"{where}in.")
        if step == 0:
            roles = prepare_crd(method, method, problem, vector, contrast=f"{where}in.contrast_idx")
        else:
            check_banks(method, vector, f"{where}buffer.", roles=roles)
        method.sampler = Fixed(tensor(vector[f"{where}in.contrast_idx"]))
        method.zero_grad()
        term = method(problem.batch)
        term.backward()
        check(vector[f"{where}out.loss"], term, f"loss of step {step}")
        if step == 0:
            check(vector["out.loss"], term, "loss")
        problem.check_leaves({name.removeprefix(where): vector[name] for name in vector if name.startswith(where)})
        here = {name.removeprefix(where): vector[name] for name in vector if name.startswith(f"{where}grad.")}
        check_gradients(method, here, roles)
        method.end_step(ALONE, 1)
    check_banks(method, vector, "after.buffer.", roles=roles)


def crd_mdistiller(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]["CRD"]
    nce, weights = hp["NCE"], hp["LOSS"]
    method = CRD(
        ce=weights["CE_WEIGHT"],
        weight=weights["FEAT_WEIGHT"],
        feature_dim=hp["FEAT"]["DIM"],
        num_negatives=nce["K"],
        contrast_temperature=nce["TEMPERATURE"],
        momentum=nce["MOMENTUM"],
    )
    problem = problem_of(vector)
    roles = prepare_crd(method, method, problem, vector, contrast="in.contrastive_index")
    check_terms(vector, method, total(method, problem))
    problem.check_leaves(vector)
    check_gradients(method, vector, roles)


# ---- whole loops of RepDistiller, SimKD and CTKD, with one step of SGD


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
        check_banks(crd, vector, "buffer_after.crd.", roles=roles)


def loop_kd(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]
    ce, kd = (hp["gamma"], hp["alpha"]) if "gamma" in hp else (hp["cls"], hp["div"])
    problem = problem_of(vector)
    finish_loop(vector, hp, KD(ce=ce, kd=kd, temperature=hp["kd_T"]), problem, {})


def loop_pkt(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]
    method = PKT(ce=hp["gamma"], kd=hp["alpha"], temperature=hp["kd_T"], weight=hp["beta"])
    finish_loop(vector, hp, method, problem_of(vector), {})


def loop_crd(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]
    method = CRD(
        ce=hp["gamma"],
        kd=hp["alpha"],
        temperature=hp["kd_T"],
        weight=hp["beta"],
        feature_dim=hp["feat_dim"],
        num_negatives=hp["nce_k"],
        contrast_temperature=hp["nce_t"],
        momentum=hp["nce_m"],
    )
    problem = problem_of(vector)
    roles = prepare_crd(method, method, problem, vector, contrast="in.contrast_idx", prefix="crd.")
    finish_loop(vector, hp, method, problem, roles)


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


# ---- CTKD alone


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


def schedule_lr(vector: Vector, meta: Meta) -> None:
    hp = meta["hp"]
    config = Optimisation(epochs=240, lr=hp["lr"], milestones=tuple(hp["decay_epochs"]), gamma=hp["rate"])
    found = [learning_rate(config, int(epoch) - 1, 1) for epoch in vector["in.epoch"]]
    check(vector["out.lr"], torch.tensor(found, dtype=torch.float64), "learning rate")


def _detached(outputs: Outputs) -> Outputs:
    embedding = None if outputs.embedding is None else outputs.embedding.detach()
    features = {name: value.detach() for name, value in outputs.features.items()}
    return Outputs(outputs.logits.detach(), embedding, features)


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
    "crd_repdistiller": crd_steps,
    "crd_mdistiller": crd_mdistiller,
    "loop_repdistiller_kd": loop_kd,
    "loop_simkd_kd": loop_kd,
    "loop_repdistiller_pkt": loop_pkt,
    "loop_repdistiller_crd": loop_crd,
    "ctkd_loop": ctkd_loop,
    "ctkd_global_kd": ctkd_global,
    "ctkd_global_dkd": ctkd_global_dkd,
    "ctkd_instance": ctkd_instance,
    "ctkd_schedule": ctkd_schedule,
    "ctkd_trajectory": ctkd_trajectory,
    "ctkd_dkd_nan_repro": ctkd_dkd_nan_repro,
    "schedule_repdistiller_lr": schedule_lr,
}
