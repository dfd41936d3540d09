"""The code in the format's specification runs, on files of version 1, and the specification names all there is."""

import hashlib
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import REPOSITORY

import stores.show
from stores.codec_registry import codec_from_json, codec_ids
from stores.manifest import Manifest
from stores.reader import open_store

README = Path(stores.show.__file__).with_name("README.md").read_text(encoding="utf-8")
GOLDEN = REPOSITORY / "tests" / "golden" / "store_v1"
LOOK, READ, OUTPUTS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_a_view_is_looked_at_as_the_specification_says() -> None:
    names: dict[str, Any] = {}
    code = LOOK.replace("STORE", str(GOLDEN / "dense_f16")).replace("views/7", "views/3").replace("[12]", "[2]")
    exec(code, names)
    assert np.array_equal(names["logits"], open_store(GOLDEN / "dense_f16").gather(3, np.array([2]))["logits"][0])


@pytest.mark.parametrize("name", ["dense_f16", "affine_u8", "topk", "embedding_u8", "two_codecs"])
def test_a_reader_written_from_the_specification_reads_what_ours_reads(name: str) -> None:
    shard = max((GOLDEN / name).rglob("rows-*.h5"))
    names: dict[str, Any] = {}
    exec(re.sub(r"STORE/views/\S*\.h5", str(shard), READ), names)
    reader = open_store(GOLDEN / name)
    ours = reader.gather(3, np.arange(6))
    for sample in range(names["header"]["start"], names["header"]["stop"]):
        row = names["read_row"](sample, list(reader.fields))
        assert all(np.array_equal(ours[field][sample], row[field]) for field in ours)
    text = json.dumps(names["identity"], sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == names["header"]["store"]


def test_outputs_are_read_as_the_specification_says() -> None:
    names: dict[str, Any] = {}
    code = OUTPUTS.replace("STORE", str(GOLDEN / "two_codecs")).replace("(7, ids)", "(3, ids)")
    exec(code, names)
    columns = open_store(GOLDEN / "two_codecs").gather(3, np.array([5, 0, 3]))
    assert np.array_equal(names["embedding"], columns["embedding"].astype(np.float32))
    rebuilt = names["embedding"] @ names["weight"].T + names["bias"]
    np.testing.assert_allclose(names["logits"], rebuilt, rtol=1e-5, atol=1e-5)
    assert names["logits"].dtype == names["embedding"].dtype == np.float32


def test_every_codec_field_and_manifest_entry_is_specified() -> None:
    assert all(f"`{name}`" in README for name in codec_ids())
    assert all(f"`{item.name}`" in README for item in fields(Manifest))
    for name in codec_ids():
        (found,) = open_store(GOLDEN / name).codecs
        assert codec_from_json(found.to_json()) == found
        assert all(f"`{field.name}`" in README for field in found.fields)
    with h5py.File(GOLDEN / "dense_f16" / "store.h5", "r") as file:
        assert all(f"`{name}`" in README for name in [*file.attrs, *file["views/3"].attrs, *file["views/3"]])
