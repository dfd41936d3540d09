"""Does the rate-distortion table say what codecs do to a teacher's logits?"""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import kl_div

from benchmarks._shared.benchmark import perform
from benchmarks.codecs import Codecs
from benchmarks.codecs.measure import LOSSES, TeacherRows, gradient, measure_codecs, relative_error, teacher_rows


@pytest.fixture(scope="module")
def rows() -> TeacherRows:
    """Logits like a trained network's: one class well above the others."""
    generator = torch.Generator().manual_seed(0)
    embedding, weight = torch.randn(100, 64, generator=generator).relu(), torch.randn(200, 64, generator=generator)
    bias = torch.randn(200, generator=generator)
    logits = embedding @ weight.T + bias
    return TeacherRows(logits, embedding, logits.argmax(1), weight, bias)


def test_less_is_kept_by_smaller_codecs(rows: TeacherRows) -> None:
    lines = {line.codec: line for line in measure_codecs(rows)}
    assert lines["dense_f16"].row_bytes == 400
    assert lines["dense_f16"].imagenet_gb == pytest.approx(0.512, abs=1e-3)
    assert lines["dense_f16"].kl < lines["affine_u8"].kl < lines["topk:5"].kl
    assert lines["topk:100"].kl < lines["topk:20"].kl < lines["topk:5"].kl
    assert lines["embedding_f16"].kl < lines["embedding_u8"].kl
    for line in lines.values():
        assert line.top1_kept > 95
        assert min(line.gradient_errors.values()) > 0


def test_top_k_is_for_temperature_one(rows: TeacherRows) -> None:
    (line,) = measure_codecs(rows, ("topk:20",))
    assert line.gradient_errors["KD T=1"] < 0.2 < line.gradient_errors["KD T=4"]


def test_a_top_k_of_all_classes_is_left_out(rows: TeacherRows) -> None:
    assert [line.codec for line in measure_codecs(rows, ("topk:199", "topk:200", "topk:500"))] == ["topk:199"]


def test_dkd_is_the_authors_formula() -> None:
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(16, 10, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    labels = torch.randint(10, (16,), generator=generator)
    for name, beta, temperature in (("DKD T=1 b=.5", 0.5, 1.0), ("DKD T=4 b=8", 8.0, 4.0)):
        expected = _authors_dkd(student, teacher, labels, alpha=1.0, beta=beta, temperature=temperature)
        found = LOSSES[name](student, teacher, labels)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_dkd_stays_finite_where_the_others_probability_underflows() -> None:
    student = torch.zeros(1, 5, dtype=torch.float64).index_fill(1, torch.tensor([2]), 2000.0)
    found = gradient(LOSSES["DKD T=1 b=.5"], student, torch.randn(1, 5).double(), torch.tensor([2]))
    assert torch.isfinite(found).all()


def test_the_error_is_relative_to_the_exact_gradient() -> None:
    assert relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0])) == pytest.approx(4 / 3)


def test_the_teacher_looks_at_as_many_views_as_asked_for(photo_folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    settings = Codecs(photo_folder, "demo_teacher@random", rows=100, resolution=32, threads=1)
    found = teacher_rows(settings, lambda *progress: seen.append(progress))
    assert seen[-1] == (100, 100)
    assert found.logits.shape == (100, 4)
    torch.testing.assert_close(found.logits, found.embedding @ found.weight.T + found.bias, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.labels[72:], found.labels[:28]), "72 images in one order, view after view"
    assert not torch.equal(found.logits[72:], found.logits[:28]), "another view"
    assert torch.bincount(found.labels[:72]).tolist() == [18] * 4


def test_the_command_writes_figures_and_a_picture(
    photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, picture = tmp_path / "codecs.json", tmp_path / "codecs.png"
    files = {"json": report, "png": picture}
    perform(Codecs(photo_folder, "demo_teacher@random", **files, rows=20, resolution=32, threads=1))
    found = json.loads(report.read_text())
    assert found["teacher_top1"] <= 100
    assert found["settings"]["data"] == f"{photo_folder.parent.name}/{photo_folder.name}"
    names = [line["codec"] for line in found["codecs"]]
    assert names == ["dense_f16", "affine_u8", "embedding_f16", "embedding_u8"], "four classes: no top-5"
    assert picture.read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "NOT TRAINED" in shown
    assert "…" not in shown, "figures are cut off"
    assert max(map(len, shown.splitlines())) <= 80


def _authors_dkd(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, *, alpha: float, beta: float, temperature: float
) -> torch.Tensor:
    """mdistiller's dkd_loss, with masks and probabilities."""
    mask = torch.nn.functional.one_hot(labels, student.shape[1]).bool()
    probs = [(z / temperature).softmax(1) for z in (student, teacher)]
    pairs = [torch.stack(((p * mask).sum(1), (p * ~mask).sum(1)), 1) for p in probs]
    tckd = kl_div(pairs[0].log(), pairs[1], reduction="sum") * temperature**2 / len(labels)
    log_s = (student / temperature - 1000.0 * mask).log_softmax(1)
    others = (teacher / temperature - 1000.0 * mask).softmax(1)
    nckd = kl_div(log_s, others, reduction="sum") * temperature**2 / len(labels)
    return alpha * tckd + beta * nckd
