"""What a network gives for a batch of images."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Outputs:
    """One forward pass.

    Attributes:
        logits: (B, C) float32.
        embedding: (B, D) float32, the input of the last linear layer (after dropout where the model has it); None where
            it was not computed or not kept.
        features: maps (B, C_k, H_k, W_k) by tap name, in the dtype they were computed in.
    """

    logits: Tensor
    embedding: Tensor | None = None
    features: dict[str, Tensor] = field(default_factory=dict)
