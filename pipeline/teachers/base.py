"""What a training step asks of its teacher: outputs for a batch, wherever they come from."""

from abc import ABC, abstractmethod

import torch

from pipeline.data.loader import Batch
from pipeline.models.outputs import Outputs


class Teacher(ABC):
    """Gives the outputs that belong to a batch's views, detached and on the batch's device."""

    num_parameters: int = 0

    @abstractmethod
    def outputs(self, batch: Batch, images: torch.Tensor) -> Outputs:
        """The teacher's outputs, (B, ...), for the batch's rows in their order. Does not wait for the device.

        Args:
            batch: the views, with their pixels.
            images: (B, 3, R, R) float32, the same pixels as the student sees them.
        """

    @abstractmethod
    def blank(self, pixels_BHWC: torch.Tensor, images: torch.Tensor) -> Outputs:
        """Outputs of the right shapes for (B, R, R, 3) uint8 gray pixels that are no sample's."""
