"""Every logit in eight bits: half of dense_f16, for losses at all temperatures.

On disk: `logits_u8` (width,) |u1, `logits_scale` () <f4, `logits_offset` () <f4, as `AffineCodec` says.
"""

from dataclasses import dataclass
from typing import ClassVar

from stores.codec import Source
from stores.codecs._shared.affine import AffineCodec


@dataclass(frozen=True)
class AffineU8(AffineCodec):
    """Logits of all classes as eight bits between the row's least and greatest.

    Attributes:
        width: classes.
    """

    id: ClassVar[str] = "affine_u8"
    source: ClassVar[Source] = "logits"
