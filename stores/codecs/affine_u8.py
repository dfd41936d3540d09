"""Every logit in eight bits: half of dense_f16, for losses at all temperatures.

On disk: `logits_u8` (width,) |u1, `logits_scale` () <f4, `logits_offset` () <f4. width + 8 bytes a row.
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
class AffineU8(Codec):
    """Logits of all classes as eight bits between the row's least and greatest.

    Attributes:
        width: classes.
    """

    id: ClassVar[str] = "affine_u8"
    source: ClassVar[Source] = "logits"
    width: int

    def __post_init__(self) -> None:
        check_width(self.width, self.id)

    @property
    def fields(self) -> tuple[Field, ...]:
        """See `Codec`."""
        return (
            Field("logits_u8", "|u1", (self.width,)),
            Field("logits_scale", "<f4", ()),
            Field("logits_offset", "<f4", ()),
        )

    def encode(self, rows_BK: np.ndarray) -> dict[str, np.ndarray]:
        """See `Codec`."""
        check_rows(rows_BK, codec=self.id, width=self.width, greatest=GREATEST)
        rows = encode_affine(rows_BK)
        return {"logits_u8": rows.codes, "logits_scale": rows.scales, "logits_offset": rows.offsets}

    def decode(self, fields: dict[str, np.ndarray]) -> np.ndarray:
        """See `Codec`."""
        return decode_affine(AffineRows(fields["logits_u8"], fields["logits_scale"], fields["logits_offset"]))

    def decode_tensors(self, fields: dict[str, Any]) -> Any:
        """See `Codec`."""
        codes = fields["logits_u8"].float()
        return codes * fields["logits_scale"].unsqueeze(1) + fields["logits_offset"].unsqueeze(1)

    def bound(self, rows_BK: np.ndarray) -> np.ndarray:
        """See `Codec`."""
        return affine_bound(rows_BK)

    def to_json(self) -> dict[str, Any]:
        """See `Codec`."""
        return {"id": self.id, **asdict(self)}
