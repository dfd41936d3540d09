"""The teacher on batches of one size: what a row gives depends on the row and that size alone."""

import pytest
import torch

from pipeline.core.errors import ConfigError
from pipeline.devices.numerics import teacher_precision
from pipeline.teachers.preparation import preparation
from pipeline.teachers.rebuild import build_teacher
from pipeline.teachers.runner import TeacherRunner

CPU = torch.device("cpu")
PREPARE = preparation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), CPU, torch.channels_last)


def run_of(batch: int, precision: str = "fp32") -> TeacherRunner:
    network, _ = build_teacher("demo_teacher@random", num_classes=7)
    return TeacherRunner(network, device=CPU, precision=precision, prepare=PREPARE, batch=batch)


def pixels(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_a_short_batch_gives_the_bits_of_a_full_one() -> None:
    run, images = run_of(12), pixels(12)
    full, short = run.of_pixels(images), run.of_pixels(images[:5])
    assert short.logits.shape == (5, 7)
    assert torch.equal(short.logits, full.logits[:5])
    assert torch.equal(short.embedding, full.embedding[:5])


def test_every_kth_image_of_a_request_is_a_batch_of_its_own() -> None:
    run, images = run_of(4), pixels(12)
    for position in range(3):
        own = images[position::3]
        assert torch.equal(run.of_pixels(own).logits, run.of_pixels(own.clone()).logits)


def test_more_images_than_a_batch_are_a_defect() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        run_of(4).of_pixels(pixels(5))


def test_logits_are_the_head_of_the_embedding_in_float32_under_bf16() -> None:
    run = run_of(4, "bf16")
    outputs = run.of_pixels(pixels(4))
    weight, bias = run.head()
    assert outputs.logits.dtype == outputs.embedding.dtype == torch.float32
    torch.testing.assert_close(outputs.embedding @ weight.T + bias, outputs.logits, rtol=1e-5, atol=1e-5)


def test_weights_have_a_name_of_their_own() -> None:
    (_, first), (_, again) = (build_teacher("demo_teacher@random", num_classes=7) for _ in range(2))
    _, other = build_teacher("demo_student@random", num_classes=7)
    assert first == again != other


def test_a_teacher_without_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="a teacher needs weights"):
        build_teacher("demo_teacher", num_classes=7)


def test_auto_precision_depends_on_the_device() -> None:
    assert teacher_precision("auto", CPU) == "fp32"
    assert teacher_precision("auto", torch.device("cuda")) == "fp16"
    assert teacher_precision("bf16", CPU) == "bf16"
