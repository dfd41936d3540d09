"""What a manifest says, as records: the JSON comes back as it stood, and what is not there is read as its default."""

import json
from typing import Any

import pytest

from pipeline.core.errors import StoreError
from stores.records import CodecCost, Measured, NoiseFloor, PixelRecipe, Record, TeacherAccuracy, TeacherRecord

WHOLE: dict[str, Any] = {
    "name": "resnet18@random",
    "weights_sha256": "ab" * 32,
    "resolution": 224,
    "mean": [0, 0.5, 1],
    "std": [1, 1.0, 0.25],
    "precision": "fp32",
    "batch": 16,
}


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        (TeacherRecord, {}),
        (TeacherRecord, WHOLE),
        (TeacherRecord, {"name": "x", "seed": None, "compile": False, "newer": {"of": [1, 2.50]}, "older": None}),
        (PixelRecipe, {"backend": "dali", "decode": "region, nvjpeg", "resize": "linear", "copy": None}),
        (PixelRecipe, {"backend": "torchvision", "decoder": "pillow", "decode": "full", "copy": {"max_side": 500}}),
        (Measured, {"top1": 73.3, "noise_floor": {"kl": 1e-9, "max_abs": 2e-5}}),
        (Measured, {"top1": None, "codecs": {"topk": {"row_bytes": 88, "kl": 0}}, "noise_floor": {"batches": [2, 1]}}),
        (Measured, {"top1": {"top1": 5.0, "top5": 9, "ce": 1e300, "num_samples": 3}, "codecs": {}}),
    ],
)
def test_json_comes_back_to_the_last_byte(kind: type[Record], entries: dict[str, Any]) -> None:
    found = kind.from_json(json.loads(json.dumps(entries)))
    assert json.dumps(found.to_json()) == json.dumps(entries, sort_keys=True), "in the order of files"
    assert found == kind.from_json(found.to_json())


def test_a_record_that_is_made_has_all_of_its_entries() -> None:
    teacher = TeacherRecord(
        name="x", weights_sha256="0", resolution=32, mean=(0, 0, 0), std=(1, 1, 1), precision="fp16", batch=8
    )
    assert {name for name, value in teacher.to_json().items() if value is None} == set()
    assert teacher.to_json()["compile"] is False
    assert (teacher.to_json()["mean"], "embedding_dim" in teacher.to_json()) == ([0, 0, 0], False)
    floor = NoiseFloor(batches=(16, 8), rows=16, kl=1e-9, kl_max=1e-8, max_abs_logit=1e-4)
    costs = {"topk": CodecCost(row_bytes=88, kl=0.1, kl_max=0.2, max_abs_logit=3.0)}
    measured = Measured(noise_floor=floor).having(codecs=costs)
    assert Measured.from_json(measured.to_json()) == measured
    assert measured.to_json()["noise_floor"]["batches"] == [16, 8]


def test_what_is_not_there_is_read_as_its_default() -> None:
    teacher = TeacherRecord.from_json({"name": "x"})
    assert (teacher.seed, teacher.compile, teacher.channels_last) == (0, False, True)
    nothing = Measured.from_json({})
    assert (nothing.percent, nothing.floor.kl, nothing.floor.max_abs_logit, nothing.cost("topk").kl) == (None, 0, 0, 0)
    assert Measured.from_json({"top1": 73.3}).percent is None


def test_a_field_that_is_set_takes_the_place_of_what_stood_there() -> None:
    accuracy = TeacherAccuracy(top1=70.0, top5=90.0, ce=1.0, num_samples=50_000)
    assert Measured.from_json({"top1": 73.3, "newer": 1}).having(top1=accuracy).to_json() == {
        "newer": 1,
        "top1": {"ce": 1.0, "num_samples": 50_000, "top1": 70.0, "top5": 90.0},
    }


@pytest.mark.parametrize("lost", WHOLE)
def test_a_teacher_is_run_by_a_whole_record(lost: str) -> None:
    assert TeacherRecord.from_json(WHOLE).whole().mean == (0, 0.5, 1)
    with pytest.raises(StoreError, match=rf"lacks {lost}: its rows cannot be computed again"):
        TeacherRecord.from_json({name: value for name, value in WHOLE.items() if name != lost}).whole()


def test_an_entry_of_another_kind_is_refused() -> None:
    with pytest.raises(StoreError, match="must be a JSON object"):
        PixelRecipe.from_json([])


def test_recipes_may_differ_in_their_decoder_alone() -> None:
    older, newer = PixelRecipe.from_json({"backend": "a", "copy": None}), PixelRecipe(backend="a", decoder="pillow")
    assert not older.same_but_decoder(newer), "the copy is another entry"
    assert older.same_but_decoder(PixelRecipe.from_json({"backend": "a", "copy": None, "decoder": "pillow"}))
    assert str(older) == "{'backend': 'a', 'copy': None}"
