"""The input of the teacher's last linear layer in eight bits: the smallest codec from which all logits come back.

On disk: `embedding_u8` (width,) |u1, `embedding_scale` () <f4, `embedding_offset` () <f4. width + 8 bytes a row.
scale = max((greatest - least) / 255, 2^-126), offset = least, code = round((x - offset) / scale) in 0..255.
Decoding: code * scale + offset in float32.
Error: at most scale * (1/2 + 2^-13) + 2^-22 * (|least| + |greatest|); constant rows come back exactly.
Values beyond 2^126 and values that are not finite are refused.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from stores.codec import Codec, Field, Source
from stores.codecs._shared.affine import GREATEST, AffineRows, affine_bound, decode_affine, encode_affine
from stores.codecs._shared.checks import check_rows, check_width


@dataclass(frozen=True)
class EmbeddingU8(Codec):
    """Embeddings as eight bits between the row's least and greatest; logits are rebuilt as W f + b.

    Attributes:
        width: dimensions of the embedding.
    """

    id: ClassVar[str] = "embedding_u8"
    source: ClassVar[Source] = "embedding"
    width: int

    def __post_init__(self) -> None:
        check_width(self.width, self.id)

    @property
    def fields(self) -> tuple[Field, ...]:
        """See `Codec`."""
        return (
            Field("embedding_u8", "|u1", (self.width,)),
            Field("embedding_scale", "<f4", ()),
            Field("embedding_offset", "<f4", ()),
        )

    def encode(self, rows_BK: np.ndarray) -> dict[str, np.ndarray]:
        """See `Codec`."""
        check_rows(rows_BK, codec=self.id, width=self.width, greatest=GREATEST)
        rows = encode_affine(rows_BK)
        return {"embedding_u8": rows.codes, "embedding_scale": rows.scales, "embedding_offset": rows.offsets}

    def decode(self, fields: dict[str, np.ndarray]) -> np.ndarray:
        """See `Codec`."""
        return decode_affine(AffineRows(fields["embedding_u8"], fields["embedding_scale"], fields["embedding_offset"]))

    def decode_tensors(self, fields: dict[str, Any]) -> Any:
        """See `Codec`."""
        codes = fields["embedding_u8"].float()
        return codes * fields["embedding_scale"].unsqueeze(1) + fields["embedding_offset"].unsqueeze(1)

    def bound(self, rows_BK: np.ndarray) -> np.ndarray:
        """See `Codec`."""
        return affine_bound(rows_BK)

    def to_json(self) -> dict[str, Any]:
        """See `Codec`."""
        return {"id": self.id, **asdict(self)}
