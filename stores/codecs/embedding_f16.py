"""The input of the teacher's last linear layer in half precision: smaller than logits, and it contains them.

On disk: `embedding` (width,) <f2, as `Float16Codec` says.
"""

from dataclasses import dataclass
from typing import ClassVar

from stores.codec import Source
from stores.codecs._shared.float16 import Float16Codec


@dataclass(frozen=True)
class EmbeddingF16(Float16Codec):
    """Embeddings as IEEE float16; logits are rebuilt as W f + b in float32 with the store's head.

    Attributes:
        width: dimensions of the embedding.
    """

    id: ClassVar[str] = "embedding_f16"
    source: ClassVar[Source] = "embedding"
