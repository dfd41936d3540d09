"""Codecs by the id that stands on disk: a new one is a file and a line here."""

from typing import Any

from pipeline.core.errors import StoreError
from stores.codec import Codec
from stores.codecs.affine_u8 import AffineU8
from stores.codecs.dense_f16 import DenseF16
from stores.codecs.embedding_f16 import EmbeddingF16
from stores.codecs.embedding_u8 import EmbeddingU8
from stores.codecs.topk import TopK

_CODECS: dict[str, type[Codec]] = {kind.id: kind for kind in (DenseF16, AffineU8, TopK, EmbeddingF16, EmbeddingU8)}


def codec_ids() -> list[str]:
    """All codecs, as they are named on disk and on the command line."""
    return list(_CODECS)


def codec_from_json(fields: dict[str, Any]) -> Codec:
    """Rebuild a codec from what its `to_json` returned.

    Raises:
        StoreError: unknown id, or entries that are not that codec's.
    """
    arguments = dict(fields)
    kind = _codec(str(arguments.pop("id", None)), "the store's manifest")
    try:
        codec = kind(**arguments)
    except TypeError as error:
        raise StoreError(f"the store's manifest has a codec that this version cannot read: {fields}") from error
    if codec.to_json() != fields:
        raise StoreError(
            f"the store's manifest has a codec that this version reads otherwise: update Reflux\n"
            f"  manifest:     {fields}\n  this version: {codec.to_json()}"
        )
    return codec


def parse_codecs(text: str, *, num_classes: int, embedding_dim: int) -> tuple[Codec, ...]:
    """Codecs for a teacher, from ids with commas between; topk may say its k: "embedding_f16,topk:50".

    Raises:
        StoreError: an unknown id, a number where none belongs, or one codec twice.
    """
    codecs = tuple(_parse_one(word.strip(), num_classes, embedding_dim) for word in text.split(","))
    ids = [codec.id for codec in codecs]
    if len(set(ids)) < len(ids):
        raise StoreError(f"a store keeps each codec once, not '{text}': leave one out")
    return codecs


def _parse_one(word: str, num_classes: int, embedding_dim: int) -> Codec:
    name, colon, number = word.partition(":")
    kind = _codec(name, f"'{word}'")
    width = num_classes if kind.source == "logits" else embedding_dim
    if not colon:
        return kind(width=width)
    if kind is not TopK or not (number.isascii() and number.isdigit()):
        raise StoreError(f"only topk takes a number, such as topk:50; '{word}' does not fit")
    return TopK(width=width, k=int(number))


def _codec(name: str, where: str) -> type[Codec]:
    if name not in _CODECS:
        raise StoreError(f"{where}: unknown codec '{name}'; this version knows {', '.join(_CODECS)}")
    return _CODECS[name]
