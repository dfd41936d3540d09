"""What a codec is: how a store keeps one row of teacher outputs.

Encoding runs where the teacher ran, in numpy. Decoding runs where the student trains: `decode_tensors` uses tensor
methods only, so that this package never imports torch; `decode` is the same arithmetic in numpy, for everybody else.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.core.errors import StoreError

Source = Literal["logits", "embedding"]


@dataclass(frozen=True)
class Field:
    """One dataset of a shard.

    Attributes:
        name: of the dataset; no two codecs share one.
        dtype: numpy's name, little-endian, such as "<f2" or "|u1".
        shape: of one row; () for a number.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Codec(ABC):
    """Encodes (B, width) float32 rows of logits or embeddings. Its JSON stands in the manifest.

    Attributes:
        id: the codec's name on disk.
        source: which of the teacher's outputs it keeps.
        exact_support: False where a row keeps a part of the classes only (top-k), so that only some losses may use it.
        width: numbers of a row before encoding: classes, or the embedding's dimensions.
    """

    id: ClassVar[str]
    source: ClassVar[Source]
    exact_support: ClassVar[bool] = True
    width: int

    def __post_init__(self) -> None:
        if self.width < 1:
            raise StoreError(f"{self.id}: a row has at least one number, not {self.width}")

    @property
    @abstractmethod
    def fields(self) -> tuple[Field, ...]:
        """The datasets of a shard, in their order in the row checksum."""

    @abstractmethod
    def encode(self, rows_BK: np.ndarray) -> dict[str, np.ndarray]:
        """(B, width) finite float32 -> field name to (B, *field.shape).

        Raises:
            StoreError: a value is not finite or out of the codec's range (the message has the value).
        """

    @abstractmethod
    def decode(self, fields: dict[str, np.ndarray]) -> np.ndarray:
        """Inverse of `encode` up to `bound`: (B, width) float32."""

    @abstractmethod
    def decode_tensors(self, fields: dict[str, Any]) -> Any:
        """As `decode`, for torch tensors on any device, in float32; does not wait for the device."""

    @abstractmethod
    def bound(self, rows_BK: np.ndarray) -> np.ndarray:
        """(B, width) float64: the greatest |decode(encode(x)) - x| that can happen, stated a priori (for top-k: of the
        kept classes; infinite elsewhere).
        """

    def to_json(self) -> dict[str, Any]:
        """{"id": ..., "width": ..., ...}, from which `codec_registry.codec_from_json` makes an equal codec."""
        return {"id": self.id, **asdict(self)}

    @property
    def row_bytes(self) -> int:
        """Bytes of one encoded row."""
        return sum(field.row_bytes for field in self.fields)
