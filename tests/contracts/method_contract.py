"""What every distillation method promises."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from method_cases import ALONE, Case, batch_of, config_of, networks_of, terms_of

from pipeline.engine.networks import Networks
from pipeline.models.outputs import Outputs
from pipeline.teachers.stored import StoredTeacher
from stores.codec import Codec
from stores.codecs.dense_f16 import DenseF16
from stores.codecs.embedding_f16 import EmbeddingF16


class MethodContract:
    """Subclassed and given a `case` for every method and variant."""

    def test_the_loss_is_finite_and_reaches_the_student_and_every_own_part(self, case: Case) -> None:
        networks = networks_of(config_of(case))
        terms = terms_of(networks, batch_of(), epoch=1)
        assert all(term.dtype == torch.float32 and torch.isfinite(term) for term in terms.values()), terms
        terms["loss"].backward()
        for name, parameter in networks.distiller.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f"{name} gets no gradient: DDP would wait for it for ever"
                assert torch.isfinite(parameter.grad).all(), name
        assert _reached(networks.distiller.student)
        if any(parameter.requires_grad for parameter in networks.distiller.method.parameters()):
            assert _reached(networks.distiller.method)

    def test_the_teacher_stays_as_it_is(self, case: Case) -> None:
        networks = networks_of(config_of(case))
        if networks.teacher is None:
            return
        network = networks.teacher.network
        before = {name: value.clone() for name, value in network.state_dict().items()}
        terms_of(networks, batch_of(), epoch=1)["loss"].backward()
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in network.parameters())
        trained = {id(parameter) for parameter in networks.distiller.parameters() if parameter.requires_grad}
        assert not trained & {id(parameter) for parameter in network.parameters()}
        if networks.distiller.method.needs.teacher_mode == "eval":
            _same_state(network.state_dict(), before)

    def test_the_parts_are_a_function_of_the_run_seed(self, case: Case) -> None:
        torch.manual_seed(1)
        first = networks_of(config_of(case)).distiller.method.state_dict()
        torch.manual_seed(2)
        second = networks_of(config_of(case)).distiller.method.state_dict()
        _same_state(first, second)
        other = networks_of(config_of(case, run_seed=1)).distiller.method.state_dict()
        tables = [name for name, value in first.items() if value.ndim > 1 and not name.startswith("head")]
        assert all(not torch.equal(first[name], other[name]) for name in tables if first[name].std() > 0)

    def test_a_state_dict_carries_everything(self, case: Case) -> None:
        ours, theirs = networks_of(config_of(case)), networks_of(config_of(case))
        _train_a_step(ours)
        before, after = (terms_of(networks, batch_of(1), epoch=2) for networks in (theirs, ours))
        assert before["loss"].item() != after["loss"].item(), "there is something to carry"
        theirs.distiller.load_state_dict(ours.distiller.state_dict())
        for training in (True, False):
            ours.distiller.train(training)
            theirs.distiller.train(training)
            one, two = (terms_of(networks, batch_of(2), epoch=2) for networks in (ours, theirs))
            assert {name: term.item() for name, term in one.items()} == {
                name: term.item() for name, term in two.items()
            }

    def test_half_precision_gives_a_float32_loss(self, case: Case) -> None:
        exact, half = (networks_of(config_of(case, amp=amp)) for amp in ("off", "bf16"))
        expected, found = (terms_of(networks, batch_of(), epoch=1) for networks in (exact, half))
        assert found["loss"].dtype == torch.float32
        found["loss"].backward()
        assert found["loss"].item() == pytest.approx(expected["loss"].item(), rel=0.15, abs=0.05)

    def test_stored_outputs_give_the_same_loss(self, case: Case) -> None:
        networks = networks_of(config_of(case))
        for kind in {"dense", "embedding"} & set(networks.distiller.method.loss.stores):
            stored = replace(networks, teacher=_Stored(networks, kind))
            expected, found = terms_of(networks, batch_of(), epoch=1), terms_of(stored, batch_of(), epoch=1)
            for name, term in expected.items():
                assert found[name].item() == pytest.approx(term.item(), rel=1e-2, abs=1e-3), (kind, name)

    def test_it_says_what_it_needs_and_where_that_can_come_from(self, case: Case) -> None:
        networks = networks_of(config_of(case))
        method = networks.distiller.method
        maps = method.needs.teacher - {"logits", "embedding", "head"}
        if networks.teacher is not None:
            batch = batch_of()
            outputs = networks.teacher.outputs(batch, networks.prepare(batch.images))
            assert maps <= set(outputs.features)
            assert outputs.embedding is not None
        assert not (maps and method.loss.stores), "no store keeps maps"
        if "topk" in method.loss.stores:
            assert method.weights.temperature <= 1


class _Stored:
    """A teacher whose outputs went through a store's codec."""

    def __init__(self, networks: Networks, kind: str) -> None:
        assert networks.teacher is not None
        self._online, self._kind = networks.teacher, kind

    def outputs(self, batch: Any, images: torch.Tensor) -> Outputs:
        online = self._online.outputs(batch, images)
        assert online.embedding is not None
        head = self._online.network.head
        rows, codec = (online.logits, DenseF16) if self._kind == "dense" else (online.embedding, EmbeddingF16)
        encoder: Codec = codec(rows.shape[1])
        fields = {name: torch.from_numpy(np.array(part)) for name, part in encoder.encode(rows.numpy()).items()}
        is_dense = self._kind == "dense"
        teacher = StoredTeacher(
            logits=encoder if is_dense else None,
            embedding=None if is_dense else encoder,
            head=None if is_dense else (head.weight.detach().numpy(), head.bias.detach().numpy()),
            device=torch.device("cpu"),
        )
        return teacher.decode(fields)


def _train_a_step(networks: Networks) -> None:
    method = networks.distiller.method
    method.begin_step()
    terms_of(networks, batch_of())["loss"].backward()
    method.end_step(ALONE, 1)
    with torch.no_grad():
        for parameter in networks.distiller.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad / (1 + parameter.grad.norm())


def _reached(module: torch.nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.abs().max() > 0) for p in module.parameters())


def _same_state(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert list(one) == list(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
