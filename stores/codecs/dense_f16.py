"""Every logit in half precision: what all losses at all temperatures can use.

On disk: `logits` (width,) <f2, as `Float16Codec` says.
"""

from dataclasses import dataclass
from typing import ClassVar

from stores.codec import Source
from stores.codecs._shared.float16 import Float16Codec


@dataclass(frozen=True)
class DenseF16(Float16Codec):
    """Logits of all classes as IEEE float16.

    Attributes:
        width: classes.
    """

    id: ClassVar[str] = "dense_f16"
    source: ClassVar[Source] = "logits"
