"""Rows of a store as a teacher: fetched beside the pixels, compared with the plan, decoded, refused where wrong."""

import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from store_files import CLASSES, DIM, HEAD, NUM, POLICY, SEED, embedding, fill, logits, made_index

from pipeline.core.errors import StoreError
from pipeline.data.backend import BackendOptions, Source, open_backend
from pipeline.data.loader import Loader
from pipeline.data.order import Order
from pipeline.data.plan import Plan
from pipeline.data.policy import get_policy
from pipeline.teachers.staging import ViewStager
from pipeline.teachers.stored import RowFetcher, StoredTeacher, read_rows
from stores.reader import StoreReader, open_store

CPU = torch.device("cpu")
INDEX = made_index()


def batches_of(reader: StoreReader, teacher_fields: tuple[str, ...], views: frozenset[int]) -> Loader:
    backend = open_backend("synthetic", Source(INDEX), BackendOptions(16, 1, 16))
    fetch = RowFetcher(reader, fields=teacher_fields, views=views, pinned=False)
    return Loader(INDEX, Plan(get_policy(POLICY), SEED), backend, CPU, num_views=3, fetch=fetch)


ORDER = Order(INDEX.ids, run_seed=1, micro_batch=15, num_micro_batches=2)


@pytest.mark.parametrize("keep", ["dense_f16", "affine_u8", "embedding_f16", "embedding_u8"])
def test_every_batch_gets_its_own_rows(keep: str, tmp_path: Path) -> None:
    reader = fill(tmp_path / "store", keep)
    (codec,) = reader.codecs
    by_embedding = codec.source == "embedding"
    teacher = StoredTeacher(
        logits=None if by_embedding else codec,
        embedding=codec if by_embedding else None,
        head=HEAD if by_embedding else None,
        device=CPU,
    )
    fields = tuple(field.name for field in codec.fields)
    loader = batches_of(reader, fields, frozenset({0, 1}))
    seen = 0
    with closing(loader), closing(loader.training(ORDER, rank=0, world_size=1, start_step=0, stop_step=9)) as batches:
        for batch in batches:
            view = batch.epoch % 3
            if view == 2:  # not in the store
                assert batch.stored == {}
                continue
            outputs, expected = (
                teacher.outputs(batch, batch.images),
                {"logits": logits(view), "embedding": embedding(view)},
            )
            bound = codec.bound(expected[codec.source][batch.rows.ids])
            given = outputs.embedding if by_embedding else outputs.logits
            assert given is not None
            assert np.all(np.abs(given.numpy() - expected[codec.source][batch.rows.ids]) <= bound)
            if by_embedding:  # |W (f - f')| is at most the sum of |W| times the bound of each dimension
                error = np.abs(outputs.logits.numpy() - expected["logits"][batch.rows.ids])
                assert np.all(error <= bound @ np.abs(HEAD[0]).T + 1e-4)
            seen += 1
    assert seen == 12


@pytest.mark.parametrize(("what", "damage"), [("label", {"wrong_label": 33}), ("plan_crc", {"wrong_plan": 33})])
def test_a_row_of_another_image_or_crop_is_never_used(what: str, damage: dict[str, int], tmp_path: Path) -> None:
    reader = fill(tmp_path / "store", "dense_f16", **damage)
    loader = batches_of(reader, ("logits",), frozenset({0, 1}))
    with closing(loader), pytest.raises(StoreError, match=rf"(?s){what} differs.*view 0, sample ids \[33\]"):
        list(loader.training(ORDER, rank=0, world_size=1, start_step=0, stop_step=3))


def test_a_damaged_row_stops_the_run_by_name(tmp_path: Path) -> None:
    reader = fill(tmp_path / "store", "dense_f16")
    reader.close()
    shard = tmp_path / "store" / "views" / "0000" / "rows-0000040-0000080.h5"
    needle, data = logits(0)[50].astype("<f2").tobytes(), bytearray(shard.read_bytes())
    data[data.index(needle) + 3] ^= 1
    shard.write_bytes(data)
    loader = batches_of(open_store(tmp_path / "store"), ("logits",), frozenset({0, 1}))
    with closing(loader), pytest.raises(StoreError, match=r"(?s)view 0.*50"):
        list(loader.training(ORDER, rank=0, world_size=1, start_step=0, stop_step=3))


def test_topk_rows_are_the_softmax_at_temperature_one_with_a_flat_tail(tmp_path: Path) -> None:
    reader = fill(tmp_path / "store", "topk:3")
    (codec,) = reader.codecs
    teacher = StoredTeacher(logits=codec, embedding=None, head=None, device=CPU)
    fields = tuple(field.name for field in codec.fields)
    loader = batches_of(reader, fields, frozenset({0, 1}))
    with closing(loader), closing(loader.training(ORDER, rank=0, world_size=1, start_step=0, stop_step=1)) as batches:
        for batch in batches:
            given = teacher.outputs(batch, batch.images).logits.softmax(dim=1).numpy()
            exact = torch.from_numpy(logits(0)[batch.rows.ids]).double().softmax(dim=1).numpy()
            kept = np.argsort(-exact, axis=1)[:, :3]
            # float16 logits below 16 are within 2^-8, so that probabilities are within 0.8 %
            np.testing.assert_allclose(
                np.take_along_axis(given, kept, 1), np.take_along_axis(exact, kept, 1), rtol=1e-2
            )
            np.testing.assert_allclose(given.sum(axis=1), 1, atol=1e-3)


def test_blank_outputs_have_the_shapes_of_real_ones(tmp_path: Path) -> None:
    reader = fill(tmp_path / "store", "embedding_f16,dense_f16")
    embedded, dense = reader.codecs
    for teacher in (
        StoredTeacher(logits=None, embedding=embedded, head=HEAD, device=CPU),
        StoredTeacher(logits=dense, embedding=None, head=None, device=CPU),
    ):
        blank = teacher.blank(torch.zeros(3, 8, 8, 3, dtype=torch.uint8), torch.zeros(3, 3, 8, 8))
        assert blank.logits.shape == (3, CLASSES)
        assert blank.embedding is None or blank.embedding.shape == (3, DIM)


def test_a_request_is_of_one_view(tmp_path: Path) -> None:
    reader = fill(tmp_path / "store", "dense_f16")
    loader = batches_of(reader, ("logits",), frozenset({0, 1}))
    (micro_batch,) = ORDER.micro_batches(ORDER.permutation(0), 0, range(1))
    request = loader.request(micro_batch)
    mixed = replace(request.rows, views=np.arange(len(request.rows)) % 2)
    with closing(loader), pytest.raises(StoreError, match="one view"):
        read_rows(reader, ("logits",), replace(request, rows=mixed), pinned=False)


def test_the_next_view_is_staged_while_this_one_is_read_and_the_last_is_removed(tmp_path: Path) -> None:
    fill(tmp_path / "store", "dense_f16", views=(0, 1, 2))
    reader, folder = open_store(tmp_path / "store"), tmp_path / "fast"
    stager = ViewStager(reader, folder, views=frozenset({0, 1, 2}), num_views=3)
    for view, following in ((0, 1), (1, 2), (2, 0)):
        stager.enter(view)
        stager.enter(view)
        end = time.monotonic() + 30
        while staged_views(folder) != sorted({view, following} - ({0} if view == 0 else set())):
            assert time.monotonic() < end, staged_views(folder)
            time.sleep(0.01)
        rows = reader.gather(view, np.arange(NUM))["logits"]
        np.testing.assert_array_equal(rows, logits(view).astype(np.float16))
    stager.close()
    assert staged_views(folder) == []


def test_a_stage_without_permission_costs_speed_and_not_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "store", "dense_f16", views=(0, 1))
    (tmp_path / "file").write_text("not a folder")
    reader = open_store(tmp_path / "store")
    stager = ViewStager(reader, tmp_path / "file", views=frozenset({0, 1}), num_views=2)
    for view in (0, 1):
        stager.enter(view)
        assert len(reader.gather(view, np.arange(NUM))["logits"]) == NUM
    stager.close()
    assert capsys.readouterr().out.count("was not copied") == 1


def staged_views(folder: Path) -> list[int]:
    """Views with all of their shards in the stage."""
    counts = Counter(int(path.parent.name) for path in folder.rglob("rows-*.h5"))
    return sorted(view for view, count in counts.items() if count == 3)
