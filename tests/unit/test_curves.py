"""Loss terms as a person sees them: weighted, so that they add up to the loss, in the picture and in the lines."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from method_cases import Case, batch_of, config_of, networks_of, terms_of

from pipeline.engine.distiller import describe_loss, term_weights
from pipeline.jobs import curves
from pipeline.jobs.console import RunConsole
from pipeline.jobs.curves import draw_curves
from pipeline.jobs.journal import Journal
from pipeline.losses._shared.record import Weights

WEIGHTS = Weights(ce=1.0, kd=0.5, method=1e-4)
METRICS = {"loss": 8.0, "ce": 2.5, "kd": 7.0, "method": 20_000.0, "top1": 0.25, "lr": 0.1}


@pytest.mark.parametrize("epoch", [0, 5])
@pytest.mark.parametrize(
    "case",
    [
        Case("dkd", {"weight": 3.0, "warmup_epochs": 20}),
        Case("ofd", {"stages": ("stage2", "stage3", "stage4"), "teacher_mode": "train"}),
        Case("at", {"weight": 1000.0, "kd": 0.9}),
        Case("simkd", {}),
        Case("supervised", {"ce": 0.5}),
    ],
    ids=lambda case: case.method,
)
def test_the_weighted_terms_of_a_step_are_its_loss(case: Case, epoch: int) -> None:
    networks = networks_of(config_of(case))
    terms = {name: term.item() for name, term in terms_of(networks, batch_of(), epoch=epoch).items()}
    weights = term_weights(networks.distiller.method.weights)
    assert sum(weight * terms[name] for name, weight in weights.items()) == pytest.approx(terms["loss"], rel=1e-5)


def test_the_loss_in_words() -> None:
    assert describe_loss(WEIGHTS) == "ce + 0.5 * kd + 0.0001 * method"
    assert describe_loss(Weights(ce=0.0, method=1.0)) == "method"


def test_the_picture_shows_terms_that_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, 0)
    for step in (1, 2):
        journal.write("train", step, step / 2, {**METRICS, "loss": 8.0 * step, "method": 20_000.0 * (4 * step - 3)})
    journal.close()
    figures: list[Figure] = []
    monkeypatch.setattr(curves, "Figure", lambda **options: figures.append(Figure(**options)) or figures[0])
    draw_curves(tmp_path, "title", term_weights(WEIGHTS))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    drawn = {line.get_label(): list(line.get_ydata()) for line in figures[0].axes[0].lines}
    assert list(drawn) == ["loss", "ce", "0.5 * kd", "0.0001 * method"]
    loss, *terms = drawn.values()
    assert loss == [8.0, 16.0]
    assert [sum(at_step) for at_step in zip(*terms, strict=True)] == pytest.approx(loss)


@pytest.mark.parametrize(
    ("weights", "more", "expected"),
    [
        (WEIGHTS, {}, "| loss 8.000 = ce 2.500 + kd 3.500 + method 2.000 | top-1 25.0 % |"),
        (WEIGHTS, {"temperature": 4.0}, "method 2.000 | temperature 4.000 | top-1"),
        (Weights(ce=1.0), {}, "| loss 8.000 | top-1"),
    ],
)
def test_a_line_shows_terms_that_add_up(
    weights: Weights, more: dict[str, float], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console = RunConsole(enabled=True, total_steps=3, first_step=0, batch=8)
    console.train(3, 0, {**METRICS, **more}, weights=term_weights(weights), images_per_s=10.0, wait="0%")
    assert expected in capsys.readouterr().out
