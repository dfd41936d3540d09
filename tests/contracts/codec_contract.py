"""What every codec promises. Subclass `CodecContract`, say how it is made, and it is held to all of it."""

import json
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.core.errors import StoreError
from stores.codec import Codec
from stores.codec_registry import codec_from_json, codec_ids, parse_codecs

WIDTHS = (2, 3, 16, 100, 1000, 32_767, 32_768, 50_000)
SHAPES_OF_ROWS = ("normal", "constant", "ties", "tiny", "confident", "relu", "zeros", "mixed")


def rows_of(kind: str, width: int, seed: int, scale: float, offset: float) -> np.ndarray:
    """(3, width) float32 rows of one kind."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((3, width))
    if kind == "constant":
        rows[:] = rows[:, :1]
    if kind == "ties":
        rows = np.round(rows)
    if kind == "tiny":
        rows *= 1e-42 / scale  # float32's subnormal numbers
    if kind == "confident":
        rows[:, width // 2] += 40
    if kind == "relu":
        rows = np.maximum(rows, 0)
    if kind == "zeros":
        rows = np.where(rows > 0, 0.0, -0.0)
    if kind == "mixed":
        rows *= 10.0 ** rng.integers(-30, 1, rows.shape)
    if kind in ("tiny", "zeros", "relu", "mixed"):
        offset = 0.0
    return (rows * scale + offset).astype(np.float32)


class CodecContract(ABC):
    """The promises, as tests.

    Attributes:
        kind: the codec's class.
        greatest: the greatest value that it keeps.
    """

    kind: ClassVar[type[Codec]]
    greatest: ClassVar[float]

    @classmethod
    @abstractmethod
    def make(cls, width: int) -> Codec:
        """A codec for rows of `width` numbers."""

    # each subclass runs it, as is meant; examples are not drawn at random, so none is replayed in another class
    @settings(suppress_health_check=[HealthCheck.differing_executors])
    @given(
        shape=st.sampled_from(SHAPES_OF_ROWS),
        width=st.sampled_from(WIDTHS),
        seed=st.integers(0, 2**32),
        scale=st.sampled_from([1e-30, 1e-3, 1.0, 20.0, 1e3]),
        offset=st.sampled_from([0.0, -7.0, 1e4]),
    )
    @example(shape="normal", width=50_000, seed=1, scale=5.0, offset=0.0)
    def test_decoded_rows_are_within_the_bound(
        self, shape: str, width: int, seed: int, scale: float, offset: float
    ) -> None:
        codec, rows = self.make(width), rows_of(shape, width, seed, scale, offset)
        decoded = codec.decode(codec.encode(rows))
        assert decoded.shape == rows.shape
        assert decoded.dtype == np.float32
        assert np.isfinite(decoded).all()
        bound = codec.bound(rows)
        assert bound.shape == rows.shape
        assert bound.dtype == np.float64
        assert np.all(np.abs(decoded.astype(np.float64) - rows) <= bound)

    @pytest.mark.parametrize("width", WIDTHS)
    def test_the_greatest_values_are_kept(self, width: int) -> None:
        codec = self.make(width)
        rows = np.linspace(-self.greatest, self.greatest, 2 * width, dtype=np.float32).reshape(2, width)
        decoded = codec.decode(codec.encode(rows))
        assert np.all(np.abs(decoded.astype(np.float64) - rows) <= codec.bound(rows))

    def test_tensors_decode_as_arrays_do(self) -> None:
        for number, shape in enumerate(SHAPES_OF_ROWS):
            codec, rows = self.make(1000), rows_of(shape, 1000, number, 5.0, 0.0)
            encoded = codec.encode(rows)
            tensors = codec.decode_tensors({name: torch.from_numpy(array) for name, array in encoded.items()})
            assert tensors.dtype == torch.float32
            self.assert_decoded_alike(codec.decode(encoded), tensors.numpy())

    def assert_decoded_alike(self, decoded: np.ndarray, tensors: np.ndarray) -> None:
        assert np.array_equal(decoded, tensors)

    def test_encoding_does_not_depend_on_the_batch(self) -> None:
        codec = self.make(1000)
        rows = np.concatenate([rows_of(shape, 1000, 5, 5.0, 0.0) for shape in SHAPES_OF_ROWS])
        together = codec.encode(rows)
        for start in range(0, len(rows), 5):
            for name, array in codec.encode(rows[start : start + 5]).items():
                assert array.tobytes() == together[name][start : start + 5].tobytes()

    @pytest.mark.parametrize("width", WIDTHS)
    def test_encoded_arrays_are_what_the_fields_say(self, width: int) -> None:
        codec = self.make(width)
        for rows in (rows_of("normal", width, 0, 1.0, 0.0), np.zeros((0, width), np.float32)):
            encoded = codec.encode(rows)
            assert list(encoded) == [field.name for field in codec.fields]
            for field in codec.fields:
                assert encoded[field.name].shape == (len(rows), *field.shape)
                assert encoded[field.name].dtype == np.dtype(field.dtype)
                assert np.dtype(field.dtype).byteorder != ">"
            assert sum(array.nbytes for array in encoded.values()) == codec.row_bytes * len(rows)
            assert codec.decode(encoded).shape == rows.shape

    @pytest.mark.parametrize("width", WIDTHS)
    def test_json_gives_the_codec_back(self, width: int) -> None:
        codec = self.make(width)
        fields = json.loads(json.dumps(codec.to_json()))
        assert codec_from_json(fields) == codec
        assert codec_from_json(fields).to_json() == fields
        assert fields["id"] == self.kind.id
        assert fields["width"] == width

    @pytest.mark.parametrize("entries", [{"more": 1}, {"width": "10"}])
    def test_json_of_another_version_is_refused(self, entries: dict[str, object]) -> None:
        fields = {**self.make(10).to_json(), **entries}
        with pytest.raises(StoreError, match="codec"):
            codec_from_json(fields)

    def test_the_registry_and_the_command_line_know_it(self) -> None:
        (codec,) = parse_codecs(self.kind.id, num_classes=1000, embedding_dim=512)
        assert isinstance(codec, self.kind)
        assert codec.width == (1000 if codec.source == "logits" else 512)
        assert codec.id in codec_ids()

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite_are_refused(self, value: float) -> None:
        rows = rows_of("normal", 100, 0, 1.0, 0.0)
        rows[1, 37] = value
        with pytest.raises(StoreError, match=rf"not {value} \(row 1, column 37"):
            self.make(100).encode(rows)

    def test_values_out_of_range_are_refused(self) -> None:
        rows = rows_of("normal", 100, 0, 1.0, 0.0)
        rows[2, 5] = np.nextafter(np.float32(self.greatest), np.float32(np.inf))
        with pytest.raises(StoreError, match=r"not \d\S* \(row 2"):
            self.make(100).encode(rows)

    @pytest.mark.parametrize("rows", [np.zeros((2, 9), np.float32), np.zeros((2, 10)), np.zeros(10, np.float32)])
    def test_rows_of_another_form_are_refused(self, rows: np.ndarray) -> None:
        with pytest.raises(StoreError, match="another form"):
            self.make(10).encode(rows)
