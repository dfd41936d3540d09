"""The input of the teacher's last linear layer in half precision: smaller than logits, and it contains them.

On disk: `embedding` (width,) <f2, the float32 value rounded to nearest, ties to even. 2 * width bytes a row.
Decoding: float32 of the stored value, exact.
Error: at most max(|x| / 2^11, 2^-25) of a value x. Values beyond 65504 and values that are not finite are refused.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from stores.codec import Codec, Field, Source
from stores.codecs._shared.checks import check_rows, check_width
from stores.codecs._shared.float16 import GREATEST, rounding_bound


@dataclass(frozen=True)
class EmbeddingF16(Codec):
    """Embeddings as IEEE float16; logits are rebuilt as W f + b in float32 with the store's head.

    Attributes:
        width: dimensions of the embedding.
    """

    id: ClassVar[str] = "embedding_f16"
    source: ClassVar[Source] = "embedding"
    width: int

    def __post_init__(self) -> None:
        check_width(self.width, self.id)

    @property
    def fields(self) -> tuple[Field, ...]:
        """See `Codec`."""
        return (Field("embedding", "<f2", (self.width,)),)

    def encode(self, rows_BK: np.ndarray) -> dict[str, np.ndarray]:
        """See `Codec`."""
        check_rows(rows_BK, codec=self.id, width=self.width, greatest=GREATEST)
        return {"embedding": rows_BK.astype("<f2")}

    def decode(self, fields: dict[str, np.ndarray]) -> np.ndarray:
        """See `Codec`."""
        return fields["embedding"].astype(np.float32)

    def decode_tensors(self, fields: dict[str, Any]) -> Any:
        """See `Codec`."""
        return fields["embedding"].float()

    def bound(self, rows_BK: np.ndarray) -> np.ndarray:
        """See `Codec`."""
        return rounding_bound(rows_BK)

    def to_json(self) -> dict[str, Any]:
        """See `Codec`."""
        return {"id": self.id, **asdict(self)}
