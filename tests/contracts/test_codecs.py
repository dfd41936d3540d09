"""Every codec keeps the contract; those that share arithmetic agree; top-k is the softmax that it says it is."""

import importlib
import inspect
import pkgutil
from typing import ClassVar

import numpy as np
import pytest
import torch
from codec_contract import CodecContract

from pipeline.core.errors import StoreError
from stores import codecs
from stores.codec import Codec
from stores.codec_registry import codec_from_json, codec_ids, parse_codecs
from stores.codecs.affine_u8 import AffineU8
from stores.codecs.dense_f16 import DenseF16
from stores.codecs.embedding_f16 import EmbeddingF16
from stores.codecs.embedding_u8 import EmbeddingU8
from stores.codecs.topk import TopK


class TestDenseF16(CodecContract):
    kind: ClassVar[type[Codec]] = DenseF16
    greatest: ClassVar[float] = 65504.0

    @classmethod
    def make(cls, width: int) -> Codec:
        return DenseF16(width)


class TestEmbeddingF16(CodecContract):
    kind: ClassVar[type[Codec]] = EmbeddingF16
    greatest: ClassVar[float] = 65504.0

    @classmethod
    def make(cls, width: int) -> Codec:
        return EmbeddingF16(width)


class TestAffineU8(CodecContract):
    kind: ClassVar[type[Codec]] = AffineU8
    greatest: ClassVar[float] = 2.0**126

    @classmethod
    def make(cls, width: int) -> Codec:
        return AffineU8(width)

    def test_constant_rows_and_the_least_value_come_back_exactly(self) -> None:
        codec = self.make(50)
        rows = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)
        rows[1] = rows[1, 0]
        decoded = codec.decode(codec.encode(rows))
        assert np.array_equal(decoded[1], rows[1])
        assert np.array_equal(decoded.min(axis=1), rows.min(axis=1))

    def test_the_bound_is_about_half_a_step(self) -> None:
        rows = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)
        half_steps = np.ptp(rows, axis=1) / 255 / 2
        assert np.allclose(self.make(50).bound(rows), half_steps[:, None], rtol=1e-2)


class TestEmbeddingU8(CodecContract):
    kind: ClassVar[type[Codec]] = EmbeddingU8
    greatest: ClassVar[float] = 2.0**126

    @classmethod
    def make(cls, width: int) -> Codec:
        return EmbeddingU8(width)


class TestTopK(CodecContract):
    kind: ClassVar[type[Codec]] = TopK
    greatest: ClassVar[float] = 65504.0

    @classmethod
    def make(cls, width: int) -> Codec:
        return TopK(width, k=min(20, width - 1))

    def assert_decoded_alike(self, decoded: np.ndarray, tensors: np.ndarray) -> None:
        # two libraries' log differ by a unit in the last place of a number that can be 90
        np.testing.assert_allclose(tensors, decoded, rtol=0, atol=1e-5 + 2e-7 * np.abs(decoded).max())

    def test_the_greatest_logits_are_kept_in_order_equal_ones_by_lower_class(self) -> None:
        rng = np.random.default_rng(0)
        rows = np.concatenate([np.round(rng.standard_normal((50, 300)), 1), np.zeros((1, 300))]).astype(np.float32)
        rows[3, 7], rows[3, 9] = -0.0, 0.0
        for k in (1, 2, 20, 299):
            kept = TopK(300, k=k).encode(rows)["topk_indices"]
            assert np.array_equal(kept, np.argsort(-rows, axis=1, kind="stable")[:, :k])

    def test_a_softmax_at_temperature_one_keeps_every_kept_probability_and_the_tail(self) -> None:
        rows = (np.random.default_rng(1).standard_normal((20, 1000)) * 4).astype(np.float32)
        codec = TopK(1000, k=20)
        encoded = codec.encode(rows)
        exact, decoded = (torch.from_numpy(z).double().softmax(1) for z in (rows, codec.decode(encoded)))
        kept = torch.from_numpy(encoded["topk_indices"].astype(np.int64))
        torch.testing.assert_close(decoded.gather(1, kept), exact.gather(1, kept), rtol=1e-2, atol=0)
        tails = [1 - probs.gather(1, kept).sum(1) for probs in (decoded, exact)]
        torch.testing.assert_close(tails[0], tails[1], rtol=1e-2, atol=0)
        np.testing.assert_allclose(encoded["topk_tail_mass"], tails[1].numpy(), rtol=1e-6)
        others = decoded.scatter(1, kept, torch.nan).nanmean(1)
        torch.testing.assert_close(others, tails[1] / 980, rtol=1e-2, atol=0)

    def test_a_tiny_tail_is_not_lost(self) -> None:
        rows = np.zeros((1, 10), np.float32)
        rows[0, 4] = 60.0
        mass = TopK(10, k=1).encode(rows)["topk_tail_mass"]
        np.testing.assert_allclose(mass, 9 * np.exp(-60.0), rtol=1e-6)

    def test_a_tail_of_nothing_decodes_to_finite_logits(self) -> None:
        rows = np.full((1, 10), -3e38, np.float32)
        rows[0, 4] = 1000.0
        codec = TopK(10, k=1)
        decoded = codec.decode(codec.encode(rows))
        assert np.isfinite(decoded).all()
        assert torch.from_numpy(decoded).softmax(1)[0, 4] == 1

    def test_sparse_tensors_are_the_softmax_of_what_is_decoded(self) -> None:
        rows = (np.random.default_rng(2).standard_normal((5, 100)) * 3).astype(np.float32)
        codec = TopK(100, k=7)
        tensors = {name: torch.from_numpy(array) for name, array in codec.encode(rows).items()}
        sparse, log_probs = codec.sparse_tensors(tensors), codec.decode_tensors(tensors).log_softmax(1)
        torch.testing.assert_close(log_probs.gather(1, sparse.indices), sparse.log_probs, rtol=0, atol=1e-2)
        rest = log_probs.scatter(1, sparse.indices, -torch.inf).logsumexp(1)
        torch.testing.assert_close(rest, sparse.log_tail, rtol=0, atol=1e-2)

    @pytest.mark.parametrize("k", [0, -1, 10, 11])
    def test_k_is_below_the_number_of_classes(self, k: int) -> None:
        with pytest.raises(StoreError, match=f"k = {k} of 10 classes"):
            TopK(10, k=k)


def test_every_codec_file_is_registered_and_held_to_the_contract() -> None:
    modules = [
        importlib.import_module(f"stores.codecs.{found.name}") for found in pkgutil.iter_modules(codecs.__path__)
    ]
    written = {
        kind
        for module in modules
        for kind in vars(module).values()
        if inspect.isclass(kind)
        and issubclass(kind, Codec)
        and kind is not Codec
        and kind.__module__ == module.__name__
    }
    assert {contract.kind for contract in CodecContract.__subclasses__()} == written
    assert sorted(codec_ids()) == sorted(kind.id for kind in written)


def test_no_two_codecs_share_a_field() -> None:
    everything = parse_codecs(",".join(codec_ids()), num_classes=1000, embedding_dim=512)
    names = [field.name for codec in everything for field in codec.fields]
    assert len(set(names)) == len(names)


def test_only_topk_is_inexact() -> None:
    everything = parse_codecs(",".join(codec_ids()), num_classes=1000, embedding_dim=512)
    assert [codec.id for codec in everything if not codec.exact_support] == ["topk"]


def test_bytes_a_row_are_those_of_the_plan() -> None:
    everything = parse_codecs(",".join(codec_ids()), num_classes=1000, embedding_dim=512)
    sizes = {codec.id: codec.row_bytes for codec in everything}
    assert sizes == {"dense_f16": 2000, "affine_u8": 1008, "topk": 88, "embedding_f16": 1024, "embedding_u8": 520}


def test_several_codecs_are_parsed_in_their_order() -> None:
    assert parse_codecs("embedding_f16, topk:50", num_classes=1000, embedding_dim=512) == (
        EmbeddingF16(512),
        TopK(1000, k=50),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dense", "unknown codec 'dense'.*dense_f16"),
        ("", "unknown codec ''"),
        ("dense_f16:3", "only topk takes a number"),
        ("topk:many", "only topk takes a number"),
        ("topk:-3", "only topk takes a number"),
        ("topk:1000", "k = 1000 of 1000 classes"),
        ("topk,topk:50", "each codec once"),
    ],
)
def test_bad_lists_of_codecs_are_refused(text: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        parse_codecs(text, num_classes=1000, embedding_dim=512)


def test_an_unknown_codec_of_a_store_is_refused() -> None:
    with pytest.raises(StoreError, match="unknown codec 'gzip'"):
        codec_from_json({"id": "gzip", "width": 3})


@pytest.mark.parametrize("width", [0, -1])
def test_a_row_has_at_least_one_number(width: int) -> None:
    with pytest.raises(StoreError, match="at least one number"):
        DenseF16(width)
