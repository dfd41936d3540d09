"""Beginning a store, its manifest and head, and store.h5 for programs that know nothing of shards."""

import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from store_files import NUM_CLASSES, flip, rows_of, small_manifest, small_store, write_shard

from pipeline.core import hdf5
from pipeline.core.errors import StoreError
from stores import layout
from stores.codecs.dense_f16 import DenseF16
from stores.codecs.topk import TopK
from stores.index_file import create_store, list_shards, read_head, read_manifest, write_index
from stores.layout import ShardKey, shard_keys
from stores.manifest import Manifest
from stores.records import Measured
from stores.show import describe_store
from stores.verify import verify_store

CODECS = (DenseF16(width=NUM_CLASSES), TopK(width=NUM_CLASSES, k=2))
HEAD = (np.arange(10, dtype="<f4").reshape(5, 2), np.ones(5, "<f4"))

READ_ALONE = """
import sys, h5py
with h5py.File(sys.argv[1], "r") as file:
    assert not any(name.startswith("stores") for name in sys.modules)
    print(file["views/7/logits"][9].tolist(), file["views/7/label"][9], file["views/7"].attrs["complete"])
"""


def read_with_h5py_alone(file: Path, folder: Path) -> str:
    command = [sys.executable, "-I", "-c", READ_ALONE, str(file)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_h5py_alone_reads_a_view_from_any_folder_and_after_a_move(tmp_path: Path) -> None:
    small_store(tmp_path / "store", views=(7,))
    expected = rows_of(CODECS, 7, np.array([9]))
    line = f"{expected['logits'][0].tolist()} {expected['label'][0]} 1"
    assert read_with_h5py_alone(tmp_path / "store" / "store.h5", Path("/")) == line
    (tmp_path / "deep").mkdir()
    shutil.move(tmp_path / "store", tmp_path / "deep" / "moved")
    assert read_with_h5py_alone(Path("deep/moved/store.h5"), tmp_path) == line


def test_every_dataset_of_every_codec_is_one_array(tmp_path: Path) -> None:
    small_store(tmp_path / "s", views=(0, 3), codecs=CODECS)
    with h5py.File(tmp_path / "s" / "store.h5", "r") as file:
        assert sorted(file["views"]) == ["0", "3"]
        for view in (0, 3):
            for name, column in rows_of(CODECS, view, np.arange(10)).items():
                assert np.array_equal(file[f"views/{view}/{name}"][:], column), name
                assert file[f"views/{view}/{name}"].dtype == column.dtype
            assert dict(file[f"views/{view}"].attrs) == {"complete": 1, "num_rows": 10, "rows_present": 10}


def test_missing_rows_are_nan_or_zero_and_the_view_is_not_complete(tmp_path: Path) -> None:
    store, manifest = tmp_path / "s", small_manifest(CODECS)
    create_store(store, manifest, None)
    write_shard(store, ShardKey(0, 4, 8), manifest, CODECS)
    write_index(store)
    with h5py.File(store / "store.h5", "r") as file:
        view = file["views/0"]
        missing = [0, 1, 2, 3, 8, 9]
        assert np.isnan(view["logits"][missing]).all()
        assert np.isnan(view["topk_tail_mass"][missing]).all()
        assert not view["topk_indices"][missing].any()
        assert not view["label"][missing].any()
        assert np.isfinite(view["logits"][4:8]).all()
        assert (view.attrs["complete"], view.attrs["rows_present"]) == (0, 4)


def test_a_shard_that_vanished_later_reads_as_nan(tmp_path: Path) -> None:
    small_store(tmp_path / "s", views=(0,))
    ShardKey(0, 4, 8).path(tmp_path / "s").unlink()
    with h5py.File(tmp_path / "s" / "store.h5", "r") as file:
        assert np.isnan(file["views/0/logits"][4:8]).all()


def test_of_a_store_the_manifest_is_read_from_index_or_shard(tmp_path: Path) -> None:
    manifest = small_store(tmp_path / "s")
    assert read_manifest(tmp_path / "s") == manifest
    (tmp_path / "s" / "store.h5").unlink()
    assert read_manifest(tmp_path / "s") == manifest
    write_index(tmp_path / "s")
    assert read_manifest(tmp_path / "s") == manifest


@pytest.mark.parametrize("damage", ["not HDF5", "empty", "cut"])
def test_a_damaged_index_is_named_and_made_again(tmp_path: Path, damage: str) -> None:
    manifest, path = small_store(tmp_path / "s"), tmp_path / "s" / "store.h5"
    whole = path.read_bytes()
    path.write_bytes({"not HDF5": b"notes", "empty": b"", "cut": whole[: len(whole) // 2]}[damage])
    with pytest.raises(StoreError, match=r"store\.h5 holds no readable manifest[^$]*python -m stores index"):
        read_manifest(tmp_path / "s")
    write_index(tmp_path / "s")
    assert read_manifest(tmp_path / "s") == manifest


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(StoreError, match="is not a store: it has neither"):
            read_manifest(folder)
        with pytest.raises(StoreError, match="is not a store"):
            write_index(folder)


def test_a_newer_format_version_is_refused(tmp_path: Path) -> None:
    small_store(tmp_path / "s")
    text = small_manifest().to_text().replace('"version":1', '"version":2')
    with h5py.File(tmp_path / "s" / "store.h5", "r+") as file:
        file.attrs["manifest"] = text
    with pytest.raises(StoreError, match="format version 2, this program reads 1: update"):
        read_manifest(tmp_path / "s")


def test_an_old_index_is_brought_up_to_date(tmp_path: Path) -> None:
    store, manifest = tmp_path / "s", small_store(tmp_path / "s", views=(0,))
    for key in shard_keys(1, 10, 4):
        write_shard(store, key, manifest, CODECS[:1])
    measured = Measured.from_json({"top1": {"top1": 12.5}})
    write_index(store, replace(manifest, measured=measured))
    with h5py.File(store / "store.h5", "r") as file:
        assert sorted(file["views"]) == ["0", "1"]
    assert read_manifest(store).measured == measured
    assert sorted(os.listdir(store)) == ["store.h5", "views"]


def test_class_lists_of_imagenet_21k_fit(tmp_path: Path) -> None:
    manifest = small_manifest(classes=tuple(f"n{number:08d}" for number in range(21_841)))
    assert create_store(tmp_path / "s", manifest, None) == manifest
    assert len(read_manifest(tmp_path / "s").classes) == 21_841


def test_the_second_job_joins_and_gets_the_first_ones_measurements(tmp_path: Path) -> None:
    first = create_store(tmp_path / "s", small_manifest(), None)
    again = small_manifest(measured={"top1": {"top1": 1.0}}, made_with={"torch": "3"})
    assert create_store(tmp_path / "s", again, None) == first != again


@pytest.mark.parametrize(
    ("changes", "entry", "values"),
    [
        ({"plan_seed": 4}, "plan_seed", ("3", "4")),
        ({"policy": {"kind": "centre_crop"}}, "policy.kind", ('"random_resized_crop"', '"centre_crop"')),
        ({"classes": tuple("abcde")}, "classes[0]", ('"class0"', '"a"')),
        ({"index_fingerprint": "0"}, "index_fingerprint", ('"1f1f', '"0"')),
        ({"teacher": {"name": "x"}}, "teacher.mean[0]", ("0.5", "missing")),
        ({"shard_rows": 8}, "shard_rows", ("4", "8")),
        ({"codecs": (DenseF16(width=6),)}, "codecs[0].width", ("5", "6")),
    ],
)
def test_another_store_is_refused_with_the_first_entry_that_differs(
    tmp_path: Path, changes: dict[str, object], entry: str, values: tuple[str, str]
) -> None:
    small_store(tmp_path / "s")
    for _ in range(2):  # with store.h5, and with shards alone
        with pytest.raises(StoreError) as caught:
            create_store(tmp_path / "s", small_manifest(**changes), None)
        lines = str(caught.value).splitlines()
        assert f"'{entry}' differs" in lines[0]
        assert lines[1].startswith(f"  store:    {values[0]}")
        assert lines[2].startswith(f"  this job: {values[1]}")
        (tmp_path / "s" / "store.h5").unlink(missing_ok=True)


def test_a_shard_of_another_store_never_gets_into_the_index(tmp_path: Path) -> None:
    small_store(tmp_path / "s")
    small_store(tmp_path / "other", plan_seed=9)
    key = ShardKey(1, 4, 8)
    shutil.copyfile(key.path(tmp_path / "other"), key.path(tmp_path / "s"))
    with pytest.raises(StoreError, match=r"0001/rows-0000004-0000008\.h5 is a shard of another store"):
        write_index(tmp_path / "s")


def test_a_shard_with_rows_that_no_shard_has_is_refused(tmp_path: Path) -> None:
    manifest = small_store(tmp_path / "s")
    write_shard(tmp_path / "s", ShardKey(0, 2, 6), manifest, CODECS[:1])
    with pytest.raises(StoreError, match=r"rows-0000002-0000006\.h5: no shard of this store has rows 2 to 5"):
        write_index(tmp_path / "s")


def test_the_head_comes_back_here_and_through_h5py(tmp_path: Path) -> None:
    small_store(tmp_path / "s", head=HEAD)
    found = read_head(tmp_path / "s")
    assert found is not None
    assert all(np.array_equal(one, other) for one, other in zip(found, HEAD, strict=True))
    with h5py.File(tmp_path / "s" / "store.h5", "r") as file:
        assert np.array_equal(file["head/weight"][:], HEAD[0])
        assert np.array_equal(file["head/bias"][:], HEAD[1])


def test_a_store_without_embeddings_has_no_head(tmp_path: Path) -> None:
    small_store(tmp_path / "s")
    assert read_head(tmp_path / "s") is None


def test_a_lost_head_is_written_by_the_next_job(tmp_path: Path) -> None:
    manifest = small_store(tmp_path / "s", head=HEAD)
    (tmp_path / "s" / "head.h5").unlink()
    create_store(tmp_path / "s", manifest, HEAD)
    assert read_head(tmp_path / "s") is not None


def test_a_damaged_or_foreign_head_is_named(tmp_path: Path) -> None:
    small_store(tmp_path / "s", head=HEAD)
    small_store(tmp_path / "other", head=HEAD, plan_seed=9)
    path = tmp_path / "s" / "head.h5"
    with h5py.File(path, "r") as file:
        offset = file["weight"].id.get_offset()
    flip(path, offset + 1)
    with pytest.raises(StoreError, match=r"head\.h5 is damaged: dataset 'weight'"):
        read_head(tmp_path / "s")
    shutil.copyfile(tmp_path / "other" / "head.h5", path)
    with pytest.raises(StoreError, match=r"head\.h5 is not this store's classifier"):
        read_head(tmp_path / "s")


def begin(store: Path, seed: int, start: object, results: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    try:
        create_store(store, small_manifest(plan_seed=seed), (HEAD[0] + seed, HEAD[1]))
        results.put(seed)  # type: ignore[attr-defined]
    except StoreError:
        results.put(None)  # type: ignore[attr-defined]


def test_of_jobs_that_begin_one_store_together_one_wins_and_its_head_stands(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for attempt in range(5):
        store, start, results = tmp_path / str(attempt), context.Barrier(4), context.Queue()
        jobs = [context.Process(target=begin, args=(store, seed, start, results)) for seed in range(4)]
        for job in jobs:
            job.start()
        winners = [seed for seed in (results.get(timeout=60) for _ in jobs) if seed is not None]
        for job in jobs:
            job.join()
        assert winners == [read_manifest(store).plan_seed]
        head = read_head(store)
        assert head is not None
        assert np.array_equal(head[0], HEAD[0] + winners[0])
        assert sorted(os.listdir(store)) == ["head.h5", "store.h5"]


def fill(store: Path, manifest: Manifest, view: int) -> None:
    for key in shard_keys(view, manifest.num_rows, manifest.shard_rows):
        write_shard(store, key, manifest, CODECS[:1])
        write_index(store)


def test_jobs_that_index_at_one_time_end_with_all_shards(tmp_path: Path) -> None:
    context, store = multiprocessing.get_context("fork"), tmp_path / "s"
    manifest = create_store(store, small_manifest(), None)
    jobs = [context.Process(target=fill, args=(store, manifest, view)) for view in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
        assert job.exitcode == 0
    with h5py.File(store / "store.h5", "r") as file:
        assert [file[f"views/{view}"].attrs["complete"] for view in range(4)] == [1, 1, 1, 1]
    assert len(list_shards(store)) == 12


def in_a_child(limit: str, store: Path) -> str:
    """What a process says that may not write, or not much, or that may not even read."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if limit == "full":
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
            else:
                os.setgid(65534)
                os.setuid(65534)
            if limit == "reader":
                describe_store(store)
                verify_store(store, on_progress=lambda done, total: None)
            else:
                create_store(store, small_manifest(), None)
                write_index(store)
        except StoreError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as said:
        return said.read()


@pytest.mark.parametrize("state", ["new", "begun"])
def test_a_full_disk_is_one_message_and_leaves_nothing_half(tmp_path: Path, state: str) -> None:
    store = tmp_path / "s"
    if state == "begun":
        small_store(store)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    said = in_a_child("full", store)
    assert said.startswith(f"cannot write the store {store}: File too large.")
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_folders_without_permission_are_one_message(tmp_path: Path) -> None:
    store = Path(tempfile.mkdtemp())  # tmp_path lies in a folder that nobody else can enter
    store.chmod(0o755)
    try:
        assert in_a_child("nobody", store).startswith(f"cannot write the store {store}: Permission denied.")
        small_store(store / "s")
        assert in_a_child("reader", store / "s") == ""
        for path in (store / "s" / "store.h5", store / "s" / "views", store / "s"):
            mode = path.stat().st_mode
            path.chmod(0o700)
            assert re.search(
                r"^cannot read .*/s(/store\.h5|/views)?: Permission denied", in_a_child("reader", store / "s")
            )
            path.chmod(mode)
        (store / "s" / "views").chmod(0o700)
        assert "Permission denied" in in_a_child("nobody", store / "s")
        store.chmod(0o700)
        assert "Permission denied" in in_a_child("nobody", store / "s")
    finally:
        shutil.rmtree(store)


def test_no_file_is_written_in_a_format_that_only_the_newest_hdf5_reads() -> None:
    """HDF5 1.14 does not open what 2.0 writes as "latest"; 1.10's h5dump reads these files."""
    folders = [Path(module.__file__ or "").parent for module in (layout, hdf5)]
    sources = [path.read_text() for folder in folders for path in folder.rglob("*.py")]
    assert sum("libver=HDF5_VERSION" in source for source in sources) >= 3
    assert not [source for source in sources if "libver=" in source.replace("libver=HDF5_VERSION", "")]
    assert hdf5.HDF5_VERSION == ("v110", "v110")
