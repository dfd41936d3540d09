"""Logits and embeddings of a store's rows in numpy, for every codec and mix of codecs, and which codec gives them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from store_files import CLASSES, DIM, HEAD, fill, logits
from store_files import embedding as embedding_of

from pipeline.core.errors import StoreError, StoreRowError
from pipeline.teachers.stored import StoredTeacher
from stores.codec_registry import codec_ids
from stores.outputs import StoreOutputs, open_outputs, pick_outputs
from stores.reader import open_store

IDS = np.array([50, 3, 3, 89, 0])
TOPK = "topk:3"
SINGLE = ["dense_f16", "affine_u8", TOPK, "embedding_f16", "embedding_u8"]
MIXED = ["embedding_u8,dense_f16", f"{TOPK},embedding_f16", f"affine_u8,{TOPK},embedding_u8", f"{TOPK},affine_u8"]
Refusal = Callable[[int], str | None]


def test_every_codec_is_here() -> None:
    assert {name.partition(":")[0] for name in SINGLE} == set(codec_ids())


@pytest.mark.parametrize("keep", SINGLE + MIXED)
def test_logits_are_the_teachers_within_the_codecs_bound(keep: str, tmp_path: Path) -> None:
    fill(tmp_path, keep).close()
    outputs = open_outputs(tmp_path)
    for view in (0, 1):
        found, true = outputs.logits(view, IDS), logits(view)[IDS]
        assert (found.shape, found.dtype) == ((len(IDS), CLASSES), np.float32)
        codec = outputs.logits_codec
        if codec is not None:
            assert np.all(np.abs(found - true) <= codec.bound(true))
            continue
        assert outputs.embedding_codec is not None
        bound = outputs.embedding_codec.bound(embedding_of(view)[IDS])
        assert np.all(np.abs(found - true) <= bound @ np.abs(HEAD[0]).T + 1e-4)


@pytest.mark.parametrize("keep", [name for name in SINGLE + MIXED if "embedding" in name])
def test_embeddings_are_the_teachers_within_the_codecs_bound(keep: str, tmp_path: Path) -> None:
    fill(tmp_path, keep).close()
    outputs, true = open_outputs(tmp_path), embedding_of(1)[IDS]
    assert outputs.embedding_codec is not None
    found = outputs.embedding(1, IDS)
    assert (found.shape, found.dtype) == ((len(IDS), DIM), np.float32)
    assert np.all(np.abs(found - true) <= outputs.embedding_codec.bound(true))


@pytest.mark.parametrize("keep", SINGLE + MIXED)
def test_training_decodes_the_same_on_its_device(keep: str, tmp_path: Path) -> None:
    reader = fill(tmp_path, keep)
    outputs = open_outputs(tmp_path)
    teacher = StoredTeacher(
        logits=outputs.logits_codec,
        embedding=outputs.embedding_codec,
        head=outputs.head,
        device=torch.device("cpu"),
    )
    columns = reader.gather(0, IDS, fields=outputs.fields)
    decoded = teacher.decode({name: torch.from_numpy(columns[name]) for name in outputs.fields})
    np.testing.assert_allclose(outputs.logits(0, IDS), decoded.logits.numpy(), rtol=2e-6, atol=5e-6)
    if decoded.embedding is not None:
        assert np.array_equal(outputs.embedding(0, IDS), decoded.embedding.numpy())


@pytest.mark.parametrize(
    ("keep", "first"),
    [(MIXED[0], "dense_f16"), (MIXED[1], None), (MIXED[2], "affine_u8"), (MIXED[3], "affine_u8"), (TOPK, "topk")],
)
def test_exact_logits_come_first_then_the_embeddings_then_the_kept_ones(
    keep: str, first: str | None, tmp_path: Path
) -> None:
    fill(tmp_path, keep).close()
    codec = open_outputs(tmp_path).logits_codec
    assert (None if codec is None else codec.id) == first


def test_what_a_store_does_not_give_is_refused_by_what_it_keeps(tmp_path: Path) -> None:
    fill(tmp_path / "dense", "dense_f16").close()
    with pytest.raises(StoreError, match="keeps dense_f16, which gives no embeddings"):
        open_outputs(tmp_path / "dense").embedding(0, IDS)
    fill(tmp_path / "lost", "embedding_f16").close()
    (tmp_path / "lost" / "head.h5").unlink()
    outputs = open_outputs(tmp_path / "lost")
    assert outputs.embedding(0, IDS).shape == (len(IDS), DIM)
    with pytest.raises(StoreError, match=r"has lost its head\.h5"):
        outputs.logits(0, IDS)
    with pytest.raises(StoreError, match="lacks 3 of 3 shards"):
        outputs.embedding(7, IDS)


def test_a_damaged_row_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "dense_f16").close()
    shard = tmp_path / "views" / "0000" / "rows-0000040-0000080.h5"
    needle, data = logits(0)[50].astype("<f2").tobytes(), bytearray(shard.read_bytes())
    data[data.index(needle) + 3] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreRowError, match="50"):
        open_outputs(tmp_path).logits(0, IDS)


def picked(store: Path, *needs: str, refuses: Refusal = lambda num: None) -> StoreOutputs | str:
    return pick_outputs(open_store(store), frozenset(needs), refuses)


def test_a_method_reads_the_fewest_bytes_that_serve_it(tmp_path: Path) -> None:
    fill(tmp_path, f"embedding_u8,{TOPK},dense_f16").close()
    for needs, fields in (
        (("logits",), ("logits",)),
        (("logits", "head"), ("logits",)),
        (("logits", "embedding"), ("embedding_u8", "embedding_scale", "embedding_offset")),
    ):
        found = picked(tmp_path, *needs)
        assert isinstance(found, StoreOutputs)
        assert found.fields == fields
    assert picked(tmp_path, "logits", "layer4") == "the method needs feature maps (layer4), which no store keeps"


def test_embeddings_that_lost_their_classifier_are_read_beside_exact_logits(tmp_path: Path) -> None:
    fill(tmp_path, "embedding_f16,dense_f16").close()
    (tmp_path / "head.h5").unlink()
    found = picked(tmp_path, "logits", "embedding")
    assert isinstance(found, StoreOutputs)
    assert found.fields == ("logits", "embedding")


def test_kept_classes_serve_whom_they_suit(tmp_path: Path) -> None:
    fill(tmp_path, TOPK).close()
    found = picked(tmp_path, "logits")
    assert isinstance(found, StoreOutputs)
    assert found.codecs[0].id == "topk"
    refused = picked(tmp_path, "logits", refuses=lambda num: f"{num} are too few")
    assert refused == "the store keeps topk only, and 3 are too few"
