"""Every method of the folder, and its variants, keeps the method contract."""

import math
from typing import Any, get_args, get_type_hints

import pytest
from method_cases import CASES, PRESETS, Case, one_thread
from method_contract import MethodContract

from pipeline.config import method_flag
from pipeline.core.errors import ConfigError
from pipeline.methods.base import Method, MethodInfo, Weights
from pipeline.methods.registry import build_method, method_module, method_names

__all__ = ["one_thread"]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestMethods(MethodContract):
    """A new file in pipeline/methods is held to it without a line here."""


@pytest.mark.parametrize("case", PRESETS, ids=str)
def test_presets_are_hyper_parameters(case: Case) -> None:
    weights = build_method(case.method, case.arguments).weights
    assert weights.ce + weights.kd + weights.method > 0


@pytest.mark.parametrize("name", method_names())
def test_every_method_names_its_source(name: str) -> None:
    info = method_module(name).INFO
    assert isinstance(info, MethodInfo)
    assert info.paper
    assert all(figures[:2].isdigit() for figures in info.published.values()), "a figure first, then its source"


def test_an_unknown_method_argument_or_preset_is_refused_by_name() -> None:
    for name, arguments, told in (
        ("dkt", {}, "dkd"),
        ("dkd", {"gamma": 1}, "gamma"),
        ("dkd", {"preset": "mdistiler"}, "mdistiller"),
        ("ctkd", {"base": "supervised"}, "supervised"),
        ("ctkd", {"base": "sp", "base_args": {"kd": 0.0}}, "kd"),
        ("ctkd", {"base_args": {"form": "cross_entropy"}}, "entropy"),
        ("lskd", {"base": "pkt"}, "dkd"),
        ("ctkd", {"base_args": {"preset": "seed004"}}, "entropy"),
        ("ctkd", {"base_args": {"preset": "repdistilller"}}, "repdistiller"),
        ("lskd", {"base_args": {"form": "cross_entropy"}}, "form"),
        ("lskd", {"base_args": {"preset": "mdistiller"}}, r"(?s)own weights.*'mdistiller'.*Leave out the preset"),
    ):
        with pytest.raises(ConfigError, match=told):
            build_method(name, arguments)


def numbers_of_methods() -> list[tuple[str, str, type]]:
    """(method, hyper-parameter, int or float) of every one that is a number, or None."""
    found = []
    for method in method_names():
        for name, kind in get_type_hints(method_module(method).METHOD.__init__).items():
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


def test_arguments_win_over_their_preset() -> None:
    weights = build_method("kd", {"preset": "mdistiller", "kd": 0.7}).weights
    assert (weights.ce, weights.kd, weights.temperature) == (0.5, 0.7, 1.0)


def test_a_preset_of_the_base_wins_over_the_wrapper_and_arguments_over_both() -> None:
    def weights(base: str, **base_args: Any) -> Weights:
        return build_method("ctkd", {"base": base, "base_args": base_args}).weights

    assert (weights("kd").ce, weights("kd").kd) == (1.0, 1.0)
    assert weights("kd", preset="repdistiller") == build_method("kd", {"preset": "repdistiller"}).weights
    assert weights("kd", preset="repdistiller", kd=0.3).kd == 0.3
    dkd = build_method("ctkd", {"base": "dkd", "base_args": {"preset": "mdistiller_cifar"}})
    expected = build_method("dkd", {"preset": "mdistiller_cifar"})
    assert dkd.weights == expected.weights
    assert _numbers(dkd.base) == _numbers(expected)


def _numbers(method: Method) -> dict[str, float]:
    return {name: value for name, value in vars(method).items() if isinstance(value, int | float)}
