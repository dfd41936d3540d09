"""`python -m pipeline.methods`: what methods need and train."""

from pathlib import Path

import pytest
from rich.console import Console

from pipeline.core.errors import ConfigError
from pipeline.losses._shared.pairs import R34_R18, R50_MBV1
from pipeline.losses._shared.record import Loss
from pipeline.losses._shared.registry import loss_names, loss_record
from pipeline.methods.__main__ import asked_for, listing
from pipeline.methods._shared.registry import method_names
from pipeline.methods._shared.size import trained_parameters
from pipeline.methods._shared.summary import markdown, store, top1

TABLE = Path(__file__).resolve().parent.parent.parent / "docs" / "methods.md"


@pytest.fixture(scope="module")
def records() -> dict[str, Loss]:
    return {name: loss_record(name, {}) for name in loss_names()}


def test_trainable_parameters_are_those_of_the_authors_modules() -> None:
    measured = {  # on the authors' modules
        "crd": (0.13, 0.39),
        "ofd": (0.35, 2.8),
        "reviewkd": (7.55, None),  # 14.3 for MobileNetV1 with the 256 inner channels of its own recipe
        "semckd": (54.8, 862),
        "simkd": (0.85, 12.6),
        "srrl": (0.26, 2.1),
        "vid": (1.05, 13.9),
    }
    for number, pair in enumerate((R34_R18, R50_MBV1)):
        found = trained_parameters([*measured, "ctkd"], pair)
        for name, expected in measured.items():
            theirs = expected[number]
            assert theirs is None or found[name] / 1e6 == pytest.approx(theirs, rel=0.02), name
        assert found["ctkd"] == 1


def test_needs_decide_which_store_suffices(records: dict[str, Loss]) -> None:
    online = {"at", "fitnet", "ofd", "reviewkd", "semckd", "simkd", "sp", "vid"}
    assert {name for name, loss in records.items() if store(loss) == "online only"} == online
    assert {name for name, loss in records.items() if loss.needs.teacher and not loss.stores} == online
    assert {name for name, loss in records.items() if loss.stores == ("embedding",)} == {"crd", "pkt", "srrl"}
    assert {name for name, loss in records.items() if "topk" in loss.stores} == {"dist", "dkd", "nkd"}
    assert all("dense" in records[name].stores for name in ("kd", "dkd", "ctkd", "dist", "nkd", "lskd"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("71.17 (README), 70.93 and 70.43 (reproduced)", "71.17"),
        ("70.92 (CTKD's paper, unchecked)", "~70.92"),
        ("70.70 (READMEs), 69.56 (unchecked)", "70.70"),
        ("71.51 (README; DKD 71.13)", "71.51 (DKD 71.13)"),
        ("72.07 (README; Nesterov, no decay of BN and biases)", "72.07"),
        ("", "-"),
    ],
)
def test_the_first_figure_is_shown_and_marked_where_nobody_looked_it_up(text: str, shown: str) -> None:
    assert top1(text) == shown


def test_the_documents_table_is_the_one_that_is_printed() -> None:
    assert markdown(method_names()) in TABLE.read_text(), "python -m pipeline.methods --markdown"


def test_ctkds_figure_around_dkd_stands_beside_dkds_in_its_own_code() -> None:
    assert "with DKD 71.51 (DKD 71.13)" in markdown(["ctkd"])


def test_a_terminal_of_80_columns_shows_every_method_its_cost_and_its_figures() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(listing(method_names()))
    lines = [line.strip() for line in capture.get().splitlines()]
    for name in method_names():
        assert any(line.startswith(f"{name} ") for line in lines), name
    (semckd,) = (line.split() for line in lines if line.startswith("semckd "))
    assert semckd[-4:] == ["54.8", "862", "70.87", "-"]
    assert "71.17 (README)" in " ".join(lines)


def test_methods_can_be_named_and_unknown_ones_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked_for([]) == (method_names(), False)
    assert asked_for(["kd", "crd", "--markdown"]) == (["kd", "crd"], True)
    with pytest.raises(ConfigError, match=r"(?s)unknown method 'ctkt'\. Did you mean 'ctkd'\?.*Known: at, crd"):
        asked_for(["kd", "ctkt"])
    for arguments, code in ((["--help"], 0), (["--wide"], 2)):
        with pytest.raises(SystemExit) as ended:
            asked_for(arguments)
        assert ended.value.code == code
    shown = capsys.readouterr()
    assert "METHOD" in shown.out
    assert "--wide" in shown.err
