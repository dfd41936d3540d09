"""Adapters of the vectors of CRD: consecutive passes, and a whole loop with its optimiser step."""

from pipeline.methods.base import Method
from vector_outputs import ALONE, Fixed, Meta, Problem, Vector, check_terms, prepare, problem_of, total
from vector_tools import check, check_after, check_gradients, load, sgd_step, tensor

from pipeline.methods.crd import CRD

CRD_ROLES = {
    "embed_s.linear": "student_projection",
    "embed_t.linear": "teacher_projection",
    "contrast.memory_v1": "student_bank",
    "contrast.memory_v2": "teacher_bank",
}


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


def check_banks(crd: CRD, vector: Vector, where: str) -> None:
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
            check_banks(method, vector, f"{where}buffer.")
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
    check_banks(method, vector, "after.buffer.")


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
    check_terms(vector, method, total(method, problem))
    problem.check_leaves(vector)
    check_gradients(method, vector, roles)
    method.end_step(ALONE, 1)
    sgd_step(method.parameters(), hp)
    check_after(method, vector, roles)
    check_banks(method, vector, "buffer_after.crd.")


CASES = {
    "crd_repdistiller": crd_steps,
    "crd_mdistiller": crd_mdistiller,
    "loop_repdistiller_crd": loop_crd,
}
