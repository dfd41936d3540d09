"""A store's rows as what the teacher said: logits and embeddings in float32, whichever codecs keep them.

Which codec serves whom is decided here, for training too, which decodes the same fields on its device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.errors import StoreError
from stores.codec import Codec
from stores.codecs.topk import TopK
from stores.file_system import StoreIO
from stores.index_file import Head, read_head
from stores.reader import StoreReader, open_store

OUTPUTS = frozenset({"logits", "embedding", "head"})  # all that a store can give


@dataclass(frozen=True)
class StoreOutputs:
    """What is read of a store, and how it becomes outputs.

    Attributes:
        reader: the store.
        logits_codec: what gives logits; None where they are rebuilt from the embedding.
        embedding_codec: what gives embeddings; None where there are none, or nothing needs them.
        head: the teacher's classifier, weight (C, D) and bias (C,) float32; None where the store has none.
    """

    reader: StoreReader
    logits_codec: Codec | None
    embedding_codec: Codec | None
    head: Head | None

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """Those that are read."""
        return tuple(codec for codec in (self.logits_codec, self.embedding_codec) if codec is not None)

    @property
    def fields(self) -> tuple[str, ...]:
        """The store's fields that are read."""
        return tuple(field.name for codec in self.codecs for field in codec.fields)

    def logits(self, view: int, ids: np.ndarray) -> np.ndarray:
        """(B, C) float32 logits of sample ids (B,) in a view, in their order.

        Raises:
            StoreError: the view is not complete, rows are damaged, or nothing that is kept gives logits.
        """
        codec = self.logits_codec or self.embedding_codec
        if codec is None:
            raise StoreError(f"{self.reader.path} keeps {kept(self.reader)}, which gives no logits")
        return as_logits(codec, self._rows(codec, view, ids), self.head)

    def embedding(self, view: int, ids: np.ndarray) -> np.ndarray:
        """(B, D) float32 inputs of the teacher's last linear layer, of sample ids (B,) in a view, in their order.

        Raises:
            StoreError: the view is not complete, rows are damaged, or no embeddings are kept.
        """
        if self.embedding_codec is None:
            raise StoreError(f"{self.reader.path} keeps {kept(self.reader)}, which gives no embeddings")
        return self._rows(self.embedding_codec, view, ids)

    def _rows(self, codec: Codec, view: int, ids: np.ndarray) -> np.ndarray:
        return decode(codec, self.reader.gather(view, ids, fields=[field.name for field in codec.fields]))


def open_outputs(store: Path, *, io: StoreIO = "auto") -> StoreOutputs:
    """Open a store for all that it gives: exact logits where they are kept, else those of the embedding, else top-k's.

    Args:
        store: its folder.
        io: how rows are read; see `stores.reader.open_store`.

    Raises:
        StoreError: no store, or one that this version cannot read.
    """
    reader = open_store(store, io=io)
    exact, embedding, head = _kept_codecs(reader)
    return StoreOutputs(reader, exact or (_topk(reader) if head is None else None), embedding, head)


def pick_outputs(
    reader: StoreReader, needs: frozenset[str], refuses_topk: Callable[[int], str | None]
) -> StoreOutputs | str:
    """The fewest bytes that serve a method, or why none do.

    Args:
        reader: the store.
        needs: what the method wants of its teacher.
        refuses_topk: why the method cannot learn from so many kept classes; None where it can.
    """
    maps = sorted(needs - OUTPUTS)
    if maps:
        return f"the method needs feature maps ({', '.join(maps)}), which no store keeps"
    exact, embedding, head = _kept_codecs(reader)
    if embedding is None and needs & {"embedding", "head"}:
        wanted = "the teacher's embedding (precompute --keep embedding_f16)"
        return f"the method needs {wanted}, and the store keeps {kept(reader)}"
    if "embedding" in needs and head is not None:
        return StoreOutputs(reader, None, embedding, head)  # contains the logits: no further bytes to read
    if exact is not None:
        return StoreOutputs(reader, exact, embedding if "embedding" in needs else None, head)
    if head is not None:
        return StoreOutputs(reader, None, embedding, head)
    return _pick_topk(reader, refuses_topk)


def decode(codec: Codec, columns: dict[str, np.ndarray]) -> np.ndarray:
    """(B, width) float32 of the fields of a codec; `columns` may hold more."""
    return codec.decode({field.name: columns[field.name] for field in codec.fields})


def as_logits(codec: Codec, rows: np.ndarray, head: Head | None) -> np.ndarray:
    """(B, C) float32 logits of a codec's decoded rows (B, width): of embeddings W f + b, summed in float64.

    Raises:
        StoreError: embeddings without the classifier.
    """
    if codec.source == "logits":
        return rows
    if head is None:
        raise StoreError(f"{codec.id} gives logits by the teacher's classifier, and the store has lost its head.h5")
    weight, bias = (part.astype(np.float64) for part in head)
    return (rows.astype(np.float64) @ weight.T + bias).astype(np.float32)


def kept(reader: StoreReader) -> str:
    """The codecs of a store, in words."""
    return ", ".join(codec.id for codec in reader.codecs)


def _kept_codecs(reader: StoreReader) -> tuple[Codec | None, Codec | None, Head | None]:
    """What keeps exact logits, what keeps embeddings, and the classifier that belongs to these."""
    exact = next((codec for codec in reader.codecs if codec.source == "logits" and codec.exact_support), None)
    embedding = next((codec for codec in reader.codecs if codec.source == "embedding"), None)
    return exact, embedding, None if embedding is None else read_head(reader.path, reader.manifest)


def _topk(reader: StoreReader) -> TopK | None:
    return next((codec for codec in reader.codecs if isinstance(codec, TopK)), None)


def _pick_topk(reader: StoreReader, refuses_topk: Callable[[int], str | None]) -> StoreOutputs | str:
    codec = _topk(reader)
    if codec is None:
        lost = "has lost the teacher's classifier (head.h5), without which it has no logits"
        return f"the store keeps {kept(reader)} and {lost}"
    refusal = refuses_topk(codec.k)
    return f"the store keeps {kept(reader)} only, and {refusal}" if refusal else StoreOutputs(reader, codec, None, None)
