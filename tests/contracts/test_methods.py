"""Every method of the folder, and its variants, keeps the method contract."""

import math
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pytest
from method_cases import CASES, CHOICES, Case, one_thread
from method_contract import MethodContract

from pipeline.config import method_flag
from pipeline.core.errors import ConfigError
from pipeline.core.fields import abouts
from pipeline.losses._shared.record import Weights
from pipeline.losses._shared.registry import loss_names, loss_record, loss_type
from pipeline.methods._shared.registry import build_method, method_names

__all__ = ["one_thread"]


@pytest.mark.parametrize("case", CASES + CHOICES, ids=str)
class TestMethods(MethodContract):
    """A new file in pipeline/methods, with its record in pipeline/losses, is held to it without a line here."""


def test_every_method_has_a_record_and_every_record_a_method() -> None:
    assert loss_names() == method_names()


@pytest.mark.parametrize("name", loss_names())
def test_every_method_names_its_source_and_says_what_its_hyper_parameters_are(name: str) -> None:
    kind = loss_type(name)
    assert kind.paper
    texts = [text for texts in (kind.published, *kind.published_with.values()) for text in texts.values()]
    assert all(figures[:2].isdigit() for figures in texts), "a figure first, then its source"
    assert {item.name for item in fields(kind)} - {"base"} == set(abouts(kind))


@pytest.mark.parametrize("case", CASES + CHOICES, ids=str)
def test_a_record_comes_back_from_its_json(case: Case) -> None:
    loss = loss_record(case.method, case.all_arguments)
    assert loss_record(case.method, loss.to_json()) == loss


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("dkt", {}, "dkd"),
        ("dkd", {"gamma": 1}, "gamma"),
        ("dkd", {"preset": "mdistiller"}, "preset"),
        ("ctkd", {"base": "supervised"}, "supervised"),
        ("ctkd", {"base": "dist"}, r"cannot change 'dist': its base is one of at, crd, dkd, fitnet"),
        ("ctkd", {"base": "spp"}, "Did you mean 'sp'"),
        ("ctkd", {"base_args": {"temperature": 2.0}}, "leave out --temperature 2"),
        ("ctkd", {"base": "sp", "base_args": {"kd": 0.0}}, "kd"),
        ("ctkd", {"base_args": {"form": "cross_entropy"}}, "entropy"),
        ("ctkd", {"base_args": {"preset": "ctkd"}}, "'kd' has no hyper-parameter.*preset"),
        ("lskd", {"base": "pkt"}, "dkd"),
        ("lskd", {"hidden": 3}, "hidden"),
        ("lskd", {"base_args": {"form": "cross_entropy"}}, "form"),
    ],
)
def test_an_unknown_method_argument_or_base_is_refused_by_name(name: str, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_method(name, arguments)


def numbers_of_methods() -> list[tuple[str, str, type]]:
    """(method, hyper-parameter, int or float) of every one that is a number, or None."""
    found = []
    for method in method_names():
        for name, kind in get_type_hints(loss_type(method)).items():
            numbers = {int, float} & {kind, *get_args(kind)}
            if numbers:
                found.append((method, name, numbers.pop()))
    return found


@pytest.mark.parametrize(("method", "name", "kind"), numbers_of_methods())
def test_every_number_of_a_method_is_finite_and_within_bounds(method: str, name: str, kind: type) -> None:
    for value in [-1] if kind is int else [-1.0, math.nan, math.inf]:
        with pytest.raises(ConfigError, match=f"^{method_flag(name)} must be .*, got {value}$"):
            build_method(method, {name: value})


@pytest.mark.parametrize(
    ("method", "arguments", "told"),
    [
        ("ctkd", {"mode": "instance", "hidden": 0}, "--hidden must be above 0, got 0"),
        ("crd", {"num_negatives": 0}, "--num-negatives must be above 0, got 0"),
        ("crd", {"feature_dim": 0}, "--feature-dim must be above 0, got 0"),
        ("crd", {"contrast_temperature": 0.0}, "--contrast-temperature must be above 0, got 0.0"),
        ("crd", {"momentum": 1.0}, "--method-momentum must be 0 or more and below 1, got 1.0"),
        ("lskd", {"base_args": {"temperature": 0.0}}, "--temperature must be above 0, got 0.0"),
        ("at", {"stages": ()}, "--stages must name one feature tap or more"),
    ],
)
def test_a_number_of_nothing_is_refused_by_its_flag(method: str, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=f"^{told}"):
        build_method(method, arguments)


def test_arguments_win_over_the_wrappers_authors_and_those_over_the_bases_own() -> None:
    def weights(base: str, **base_args: Any) -> Weights:
        return build_method("ctkd", {"base": base, "base_args": base_args}).weights

    assert (weights("kd").ce, weights("kd").kd) == (1.0, 1.0)
    assert (weights("kd", ce=0.1, kd=0.9).ce, weights("kd", kd=0.3).kd) == (0.1, 0.3)
    assert weights("pkt").kd == 1.0
    assert build_method("pkt", {}).weights.kd == 0.0
    around = loss_record("ctkd", {"base": "dkd", "base_args": {"beta": 8.0}})
    assert around.to_json()["base_args"] == loss_record("dkd", {"beta": 8.0, "warmup_epochs": 0}).to_json()


def test_a_base_says_nothing_in_json_of_what_it_takes_alone() -> None:
    for name in ("ctkd", "lskd"):
        assert "form" not in loss_record(name, {"base": "kd"}).to_json()["base_args"]


@pytest.mark.parametrize(
    ("method", "arguments", "kept", "served"),
    [
        ("kd", {"temperature": 1.0}, 20, True),
        ("kd", {"temperature": 4.0}, 20, False),
        ("dkd", {"temperature": 1.0}, 20, True),
        ("dkd", {"temperature": 4.0}, 20, False),
        ("dist", {"temperature": 1.0}, 100, True),
        ("dist", {"temperature": 1.0}, 99, False),
        ("dist", {"temperature": 4.0}, 100, False),
        ("at", {"temperature": 1.0}, 100, False),
        ("ctkd", {}, 100, False),
        ("lskd", {"base_args": {"temperature": 1.0}}, 100, False),
    ],
)
def test_which_losses_top_k_rows_serve(method: str, arguments: dict[str, Any], kept: int, served: bool) -> None:
    assert (loss_record(method, arguments).refuses_topk(kept) is None) == served
