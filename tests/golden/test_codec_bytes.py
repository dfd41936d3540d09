"""The bytes of each codec are frozen: they stand in stores that people have filled for days.

A new codec: python tests/golden/test_codec_bytes.py, then commit codec_bytes.json. An old one is never changed: what
is changed gets a new id.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stores.codec_registry import codec_from_json, codec_ids, parse_codecs

FROZEN = Path(__file__).with_name("codec_bytes.json")
_CODECS = "dense_f16,affine_u8,topk:3,embedding_f16,embedding_u8"
_TRANSCENDENTAL = ("topk_logsumexp", "topk_tail_mass")  # exp and log differ in the last bit between processors


def frozen_rows() -> np.ndarray:
    """(4, 9) float32: ordinary, tied, constant and sparse rows, from arithmetic that is exact everywhere."""
    rows = (np.arange(36, dtype=np.float32).reshape(4, 9) * 7 % 23 - 11) / np.float32(3)
    rows[1] = np.round(rows[1] / 2)
    rows[2] = rows[2, 0]
    rows[3] = np.maximum(rows[3], 0)
    return rows


def encoded_now() -> list[dict[str, Any]]:
    found = []
    for codec in parse_codecs(_CODECS, num_classes=9, embedding_dim=9):
        fields = codec.encode(frozen_rows())
        columns = {field.name: [field.dtype, fields[field.name].tobytes().hex()] for field in codec.fields}
        found.append({"codec": codec.to_json(), "fields": columns})
    return found


def fields_of(entry: dict[str, Any]) -> dict[str, np.ndarray]:
    shapes = {field.name: field.shape for field in codec_from_json(entry["codec"]).fields}
    return {
        name: np.frombuffer(bytes.fromhex(text), dtype).reshape(4, *shapes[name])
        for name, (dtype, text) in entry["fields"].items()
    }


ENTRIES = json.loads(FROZEN.read_text()) if FROZEN.exists() else []


def test_every_codec_is_frozen() -> None:
    assert [entry["codec"]["id"] for entry in ENTRIES] == codec_ids()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["codec"]["id"])
def test_rows_written_by_version_1_are_read_and_written_as_ever(entry: dict[str, Any]) -> None:
    codec, fields, rows = codec_from_json(entry["codec"]), fields_of(entry), frozen_rows()
    assert np.all(np.abs(codec.decode(fields).astype(np.float64) - rows) <= codec.bound(rows))
    for name, array in codec.encode(rows).items():
        if name in _TRANSCENDENTAL:
            np.testing.assert_allclose(array, fields[name], rtol=1e-6)
        else:
            assert array.tobytes() == fields[name].tobytes(), f"{name}: the codec's bytes have changed"


if __name__ == "__main__":
    FROZEN.write_text(json.dumps(encoded_now(), indent=1) + "\n")
