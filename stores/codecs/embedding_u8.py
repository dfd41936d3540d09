"""The input of the teacher's last linear layer in eight bits: the smallest codec from which all logits come back.

On disk: `embedding_u8` (width,) |u1, `embedding_scale` () <f4, `embedding_offset` () <f4, as `AffineCodec` says.
"""

from dataclasses import dataclass
from typing import ClassVar

from stores.codec import Source
from stores.codecs._shared.affine import AffineCodec


@dataclass(frozen=True)
class EmbeddingU8(AffineCodec):
    """Embeddings as eight bits between the row's least and greatest; logits are rebuilt as W f + b.

    Attributes:
        width: dimensions of the embedding.
    """

    id: ClassVar[str] = "embedding_u8"
    source: ClassVar[Source] = "embedding"
