"""Methods on logits and embeddings: what no vector of their authors shows."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from method_cases import ALONE, one_thread
from torch.nn.functional import cross_entropy

from pipeline.core.errors import ConfigError
from pipeline.engine.distiller import Distiller, StudentNumerics
from pipeline.losses.crd import CRDLoss
from pipeline.losses.ctkd import CTKDLoss
from pipeline.losses.dist import DISTLoss
from pipeline.losses.dkd import DKDLoss
from pipeline.losses.kd import KDLoss
from pipeline.losses.nkd import NKDLoss
from pipeline.losses.pkt import PKTLoss
from pipeline.losses.srrl import SRRLLoss
from pipeline.methods._shared.method import Method, MethodInput, Setting
from pipeline.methods.crd import CRD
from pipeline.methods.ctkd import CTKD
from pipeline.methods.dist import DIST
from pipeline.methods.dkd import DKD
from pipeline.methods.kd import KD
from pipeline.methods.nkd import NKD
from pipeline.methods.pkt import PKT
from pipeline.methods.srrl import SRRL
from pipeline.models.outputs import Outputs

__all__ = ["one_thread"]

BATCH, CLASSES, STUDENT_DIM, TEACHER_DIM = 6, 10, 5, 8
COUNTS = (6,) * CLASSES


def batch_of(seed: int = 0, *, scale: float = 3.0, epoch: int = 0, **known: Any) -> MethodInput:
    generator = torch.Generator().manual_seed(seed)

    def draw(width: int) -> torch.Tensor:
        return torch.randn(BATCH, width, generator=generator, dtype=torch.float64) * scale

    ids = torch.randperm(sum(COUNTS), generator=generator)[:BATCH]
    student = Outputs(draw(CLASSES).requires_grad_(), draw(STUDENT_DIM).requires_grad_())
    return MethodInput(student, Outputs(draw(CLASSES), draw(TEACHER_DIM)), ids // COUNTS[0], ids, epoch, **known)


def setting(**known: Any) -> Setting:
    known.setdefault("class_counts", COUNTS)
    return Setting(student_dim=STUDENT_DIM, num_classes=CLASSES, teacher_dim=TEACHER_DIM, **known)


def built(method: Method) -> Any:
    method.build(setting())
    return method.double()


class Trained(torch.nn.Module):
    """A student whose outputs are the parameters."""

    def __init__(self, outputs: Outputs) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(outputs.logits.detach())

    def forward(self, images: torch.Tensor) -> Outputs:
        return Outputs(self.logits)


def distiller_of(method: Method, batch: MethodInput) -> Distiller:
    numerics = StudentNumerics(torch.device("cpu"), "off", 0.0)
    return Distiller(Trained(batch.student), method, numerics, compiled=False)  # type: ignore[arg-type]


def run(distiller: Distiller, batch: MethodInput, epoch: int = 0) -> dict[str, torch.Tensor]:
    terms: dict[str, torch.Tensor] = distiller(torch.zeros(1), batch.labels, batch.ids, batch.teacher, epoch)
    return terms


# ---- NKD has no vectors: its formula again, sample by sample, with the label's column cut out


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_nkd_is_its_formula_with_the_label_cut_out(temperature: float) -> None:
    batch, gamma = batch_of(temperature=temperature), 1.5
    parts = []
    for z_s, z_t, label in zip(batch.student.logits, batch.taught.logits, batch.labels, strict=True):
        kept = torch.arange(CLASSES) != label
        of_label = -torch.softmax(z_t, 0)[label] * torch.log_softmax(z_s, 0)[label]
        shares = torch.softmax(z_t[kept] / temperature, 0)
        of_others = -(shares * torch.log_softmax(z_s[kept] / temperature, 0)).sum()
        parts.append(of_label + gamma * temperature**2 * of_others)
    expected = torch.stack(parts).mean()
    (theirs,) = torch.autograd.grad(expected, batch.student.logits)
    found = NKD(NKDLoss(gamma=gamma, temperature=temperature))(batch)
    (ours,) = torch.autograd.grad(found, batch.student.logits)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("method", [NKD(NKDLoss()), DIST(DISTLoss()), DKD(DKDLoss()), KD(KDLoss())])
def test_far_logits_and_two_classes_stay_finite(method: Method) -> None:
    for scale in (1e-6, 1e4):
        for classes in (2, CLASSES):
            batch = batch_of(scale=scale, temperature=1.0)
            logits = batch.student.logits.detach()[:, :classes].float().requires_grad_()
            teacher = Outputs(batch.taught.logits[:, :classes].float())
            batch = replace(batch, student=Outputs(logits), teacher=teacher, labels=batch.labels % classes)
            term = method(batch)
            term = method.divergence(batch) if term is None else term
            term.backward()
            assert torch.isfinite(term)
            assert torch.isfinite(logits.grad).all()


# ---- composition


def test_the_loss_is_the_three_weighted_terms() -> None:
    batch = batch_of()
    method = built(DKD(DKDLoss(ce=0.3, kd=0.5, weight=0.7, temperature=2.0, warmup_epochs=4)))
    terms = run(distiller_of(method, batch), batch, epoch=1)
    assert terms["ce"].item() == pytest.approx(cross_entropy(batch.student.logits, batch.labels).item())
    whole = 0.3 * terms["ce"] + 0.5 * terms["kd"] + 0.7 * terms["method"]
    assert terms["loss"].item() == pytest.approx(whole.item())
    full = method(replace(batch, temperature=2.0, epoch=9))
    assert terms["method"].item() == pytest.approx(2 / 4 * full.item()), "half of the warm-up's four epochs"
    assert "temperature" not in terms


# ---- CTKD


@pytest.mark.parametrize("mode", ["global", "instance"])
def test_ctkd_with_dkd_trains_200_steps_without_nan(mode: Any) -> None:
    batch = batch_of(scale=8.0)
    method = built(CTKD(CTKDLoss.around("dkd", {"beta": 8.0}, mode=mode, loops=2, hidden=4)))
    distiller = distiller_of(method, batch).float()
    batch = replace(batch, teacher=Outputs(batch.taught.logits.float()))
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    temperatures, losses = [], []
    for step in range(200):
        optimizer.zero_grad()
        terms = run(distiller, batch, epoch=step // 20)
        terms["loss"].backward()
        optimizer.step()
        assert all(torch.isfinite(term) for term in terms.values()), f"step {step}: {terms}"
        assert all(torch.isfinite(p.grad).all() for p in distiller.parameters() if p.grad is not None)
        temperatures.append(terms["temperature"].item())
        losses.append(terms["loss"].item())
    assert all(1 <= t <= 21 for t in temperatures)
    assert max(temperatures) - min(temperatures) > 0.1, "the temperature is trained"
    assert losses[-1] < 0.5 * losses[0], "and so is the student"


def test_the_temperature_moves_against_the_student() -> None:
    """A step of SGD on T makes the divergence larger, on the logits smaller; at strength -1, to the last epoch."""
    batch = batch_of(epoch=7)
    method = built(CTKD(CTKDLoss.around("kd", loops=5)))
    assert method.strength(7) == -1
    logits, learned = batch.student.logits, method.predictor.global_T

    def divergence() -> torch.Tensor:
        return method.divergence(replace(batch, temperature=method.temperature(batch)))

    before = divergence()
    before.backward()
    with torch.no_grad():
        learned -= 1e-4 * learned.grad
        higher = divergence()
        learned += 1e-4 * learned.grad
        logits -= 1e-4 * logits.grad
        lower = divergence()
    assert lower < before < higher


def test_an_instance_temperature_sends_no_gradient_to_the_student() -> None:
    batch = batch_of(epoch=7)
    method = built(CTKD(CTKDLoss.around("kd", mode="instance", hidden=4)))
    temperature = method.temperature(batch)
    assert temperature.shape == (BATCH,)
    assert temperature.std() > 0
    temperature.sum().backward()
    assert batch.student.logits.grad is None
    assert all(parameter.grad is not None for parameter in method.predictor.parameters())


def test_temperature_is_logged() -> None:
    batch = batch_of()
    terms = run(distiller_of(built(CTKD(CTKDLoss.around("kd"))), batch), batch)
    assert terms["temperature"].item() == pytest.approx(1 + 20 / (1 + math.exp(-1)))


# ---- batch-coupled losses


def test_pkt_falls_as_one_over_b_unless_a_reference_batch_is_given() -> None:
    batch = batch_of()
    plain, scaled = PKT(PKTLoss())(batch), PKT(PKTLoss(reference_batch=64))(batch)
    assert scaled.item() == pytest.approx(plain.item() * BATCH / 64)


# ---- CRD


def crd(**known: Any) -> CRD:
    method: CRD = built(CRD(CRDLoss(feature_dim=4, num_negatives=12, **known)))
    return method


def test_micro_batches_of_a_step_do_not_see_each_other() -> None:
    first, second = batch_of(1), batch_of(2)
    method = crd()
    alone = method(second).item()
    method.begin_step()  # forgets what was only tried
    bank = method.student_bank.clone()
    method(first)
    assert method(second).item() == alone
    assert torch.equal(method.student_bank, bank)
    method.end_step(ALONE, 2)
    changed = (method.student_bank != bank).any(dim=1)
    assert torch.equal(changed.nonzero()[:, 0], torch.cat((first.ids, second.ids)).unique())
    assert method(second).item() != alone


def test_bank_rows_are_unit_vectors_half_old_half_new() -> None:
    batch = batch_of(1)
    method = crd(momentum=0.5)
    bank = method.teacher_bank.clone()
    method(batch)
    method.end_step(ALONE, 1)
    assert batch.teacher is not None
    projected = method.teacher_projection(batch.teacher.embedding)
    mixed = 0.5 * bank[batch.ids] + 0.5 * projected / projected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(method.teacher_bank[batch.ids], mixed / mixed.norm(dim=1, keepdim=True))


def test_the_first_step_fixes_the_normalisers() -> None:
    method = crd()
    method(batch_of(1))
    method.end_step(ALONE, 1)
    fixed = method.normalisers.clone()
    assert (fixed > 0).all()
    method(batch_of(2))
    method.end_step(ALONE, 1)
    assert torch.equal(method.normalisers, fixed)


def test_evaluation_leaves_the_banks_alone() -> None:
    method = crd().eval()
    method(batch_of(1))
    assert not method._seen


def test_methods_refuse_a_run_without_what_they_need() -> None:
    with pytest.raises(ConfigError, match="whole data set"):
        CRD(CRDLoss()).build(setting(class_counts=()))
    with pytest.raises(ConfigError, match="classifier"):
        SRRL(SRRLLoss()).build(setting())


def test_srrl_on_embeddings_needs_two_samples() -> None:
    head, maps = (torch.zeros(4, 6), torch.zeros(4)), {"stage4": (5, 2, 2)}
    alone = setting(head=head, student_maps=maps, micro_batch=1)
    with pytest.raises(ConfigError, match=r"2 or more: got 1.*--micro-batches.*'map'"):
        SRRL(SRRLLoss(form="pooled")).build(alone)
    SRRL(SRRLLoss(form="map")).build(alone)
    SRRL(SRRLLoss(form="pooled")).build(setting(head=head, micro_batch=2))
