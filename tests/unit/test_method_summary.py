"""`python -m pipeline.methods`: what methods need and train."""

import pytest
from pipeline.methods.base import R34_R18, R50_MV1
from pipeline.methods.summary import MethodSummary, summarise
from rich.console import Console

from pipeline.core.errors import ConfigError
from pipeline.methods.__main__ import listing, named_methods
from pipeline.methods._shared.registry import method_names


@pytest.fixture(scope="module")
def rows() -> dict[str, MethodSummary]:
    return {row.name: row for row in summarise()}


def test_trainable_parameters_are_those_of_the_authors_modules(rows: dict[str, MethodSummary]) -> None:
    millions = {name: tuple(row.parameters[pair] / 1e6 for pair in (R34_R18, R50_MV1)) for name, row in rows.items()}
    measured = {  # on the authors' modules
        "crd": (0.13, 0.39),
        "ofd": (0.35, 2.8),
        "reviewkd": (7.55, None),  # 14.3 for MobileNetV1 with the 256 inner channels of its own recipe
        "semckd": (54.8, 862),
        "simkd": (0.85, 12.6),
        "srrl": (0.26, 2.1),
        "vid": (1.05, 13.9),
    }
    for name, expected in measured.items():
        for ours, theirs in zip(millions[name], expected, strict=True):
            assert theirs is None or ours == pytest.approx(theirs, rel=0.02), name
    assert rows["ctkd"].parameters == {R34_R18: 1, R50_MV1: 1}


def test_needs_decide_which_store_suffices(rows: dict[str, MethodSummary]) -> None:
    online = {"at", "fitnet", "ofd", "reviewkd", "semckd", "simkd", "sp", "vid"}
    assert {name for name, row in rows.items() if row.teacher and not row.stores} == online
    assert {name for name, row in rows.items() if row.stores == ("embedding",)} == {"crd", "pkt", "srrl"}
    assert {name for name, row in rows.items() if "topk" in row.stores} == {"dist", "dkd", "nkd"}
    assert all("dense" in rows[name].stores for name in ("kd", "dkd", "ctkd", "dist", "nkd", "lskd"))


def test_a_terminal_of_80_columns_shows_every_method_its_cost_and_its_figures(rows: dict[str, MethodSummary]) -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(listing(list(rows.values())))
    lines = [line.strip() for line in capture.get().splitlines()]
    for name in method_names():
        assert any(line.startswith(f"{name} ") for line in lines), name
    (semckd,) = (line.split() for line in lines if line.startswith("semckd "))
    assert semckd[-4:] == ["54.8", "862", "70.87", "-"]
    assert "71.17 (README)" in " ".join(lines)


def test_methods_can_be_named_and_unknown_ones_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert named_methods([]) == method_names()
    assert named_methods(["kd", "crd"]) == ["kd", "crd"]
    with pytest.raises(ConfigError, match=r"(?s)unknown method 'ctkt'\. Did you mean 'ctkd'\?.*Known: at, crd"):
        named_methods(["kd", "ctkt"])
    for arguments, code in ((["--help"], 0), (["--wide"], 2)):
        with pytest.raises(SystemExit) as ended:
            named_methods(arguments)
        assert ended.value.code == code
    shown = capsys.readouterr()
    assert "METHOD" in shown.out
    assert "--wide" in shown.err
