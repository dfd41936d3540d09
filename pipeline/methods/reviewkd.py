"""ReviewKD, distillation by knowledge review.

Legend: B batch, levels from the pooled embedding (1 x 1) to the first stage.
"""

from functools import lru_cache
from itertools import zip_longest

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss

from pipeline.core.errors import ConfigError
from pipeline.losses.reviewkd import ReviewKDLoss
from pipeline.methods._shared.connectors import convolution, seeded, shapes_of
from pipeline.methods._shared.method import Method, MethodInput, Setting
from pipeline.methods._shared.pooling import pool_to
from pipeline.methods._shared.precision import as_computed, in_float32

_POOLED_SIDES = (4, 2, 1)


class ReviewKD(Method[ReviewKDLoss]):
    """Student maps, fused from the deepest up, against the teacher's: hierarchical context loss, summed over levels."""

    def build(self, setting: Setting) -> None:
        """Make one fusion for each level, the deepest first."""
        student = shapes_of(self.loss.student_taps, setting.student_maps, whose="student")
        teacher = shapes_of(self.loss.teacher_taps, setting.teacher_maps, whose="teacher")
        if setting.micro_batch < 2:
            raise ConfigError(
                "ReviewKD normalises the pooled embedding over the micro-batch, which must be 2 or more: got"
                f" {setting.micro_batch}. Raise --batch or lower --micro-batches."
            )
        if setting.teacher_dim is None:
            raise ConfigError("ReviewKD compares embeddings too: the teacher's dimensions must be known")
        channels = (*(shape[0] for shape in student), setting.student_dim)
        widths = (*(shape[0] for shape in teacher), setting.teacher_dim)
        inner = min(self.loss.mid_channels, setting.student_dim)
        deepest_first = list(zip(channels, widths, strict=True))[::-1]
        with seeded(setting.seed, "reviewkd"):
            self.fusions = nn.ModuleList(
                Fusion(c, inner, w, first=number == 0) for number, (c, w) in enumerate(deepest_first)
            )

    def forward(self, batch: MethodInput) -> Tensor:
        """The sum over levels, times the warm-up's share."""
        assert batch.student.embedding is not None
        assert batch.taught.embedding is not None
        student = [batch.student.features[tap] for tap in self.loss.student_taps]
        teacher = [batch.taught.features[tap] for tap in self.loss.teacher_taps]
        with as_computed(student[-1]):
            reviewed = self._review(
                [*student, batch.student.embedding[:, :, None, None]],
                [t.shape[2:] for t in teacher] + [torch.Size((1, 1))],
            )
        targets = [*teacher, batch.taught.embedding[:, :, None, None]]
        losses_L = context_losses([in_float32(map_) for map_ in reviewed], [in_float32(map_) for map_ in targets])
        share = self._share(batch.epoch)
        return losses_L.sum() if share == 1 else losses_L.sum() * share

    def _review(self, maps: list[Tensor], sizes: list[torch.Size]) -> list[Tensor]:
        """Each level's map in the teacher's shape, from the student's, shallow to deep as given."""
        deeper, reviewed = None, []
        for fusion, features, size in zip(self.fusions, maps[::-1], sizes[::-1], strict=True):
            compared, deeper = fusion(features, deeper, size)
            reviewed.append(compared)
        return reviewed[::-1]

    def _share(self, epoch: int) -> float:
        if not self.loss.warmup_epochs:
            return 1.0
        return min(1.0, (epoch + self.loss.first_epoch) / self.loss.warmup_epochs)


class Fusion(nn.Module):
    """Attention-based fusion of a level with what came from the deeper ones.

    Args:
        channels: of the student's map.
        inner: channels in which levels are fused.
        width: channels of the teacher's map.
        first: the deepest level, with nothing to fuse.
    """

    def __init__(self, channels: int, inner: int, width: int, *, first: bool) -> None:
        super().__init__()
        self.inward = _normed(channels, inner, 1)
        self.outward = _normed(inner, width, 3)
        self.attention = None if first else nn.Sequential(nn.Conv2d(2 * inner, 2, 1), nn.Sigmoid())

    def forward(self, features: Tensor, deeper: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """The map to compare with the teacher's, of `size`, and the fused one for the next level."""
        fused: Tensor = self.inward(features)
        if self.attention is not None and deeper is not None:
            deeper = _resize(deeper, features.shape[2:])
            weights = self.attention(torch.cat((fused, deeper), dim=1))
            own, from_deeper = weights.split(1, dim=1)
            fused = fused * own + deeper * from_deeper
        fused = _resize(fused, size)
        return self.outward(fused), fused


def context_losses(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """(L,) of each level's two (B, C, H, W) maps: `context_loss`."""
    errors = [_errors(*pair) for pair in zip(student, teacher, strict=True)]
    none = errors[0][0].new_zeros(())
    losses_L, *pooled = (torch.stack(each) for each in zip_longest(*errors, fillvalue=none))
    for number, pooled_L in enumerate(pooled, 1):
        losses_L = losses_L.add(pooled_L, alpha=0.5**number)
    return losses_L / _totals(tuple(len(each) for each in errors), losses_L.device, losses_L.dtype)


def context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of two (B, C, H, W) maps and of their averages over 4 x 4, 2 x 2, 1 x 1 grids.

    The weights 1, 1/2, 1/4, ... are those of the grids smaller than the map, divided by their sum.
    """
    return context_losses([student], [teacher])[0]


def _errors(student: Tensor, teacher: Tensor) -> list[Tensor]:
    """Mean squared errors of the maps and of their averages, unweighed."""
    sides = (side for side in _POOLED_SIDES if side < student.shape[2])
    return [
        mse_loss(student, teacher),
        *(mse_loss(pool_to(student, side, side), pool_to(teacher, side, side)) for side in sides),
    ]


@lru_cache(maxsize=16)
def _totals(counts: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """(L,) sums of the weights of each level's errors; made once, since numbers from the host are waited for."""
    with torch.inference_mode(False):
        return torch.tensor([2 - 0.5 ** (count - 1) for count in counts], device=device, dtype=dtype)


def _resize(features: Tensor, size: torch.Size) -> Tensor:
    return features if features.shape[2:] == size else interpolate(features, (size[0], size[1]), mode="nearest")


def _normed(channels: int, width: int, kernel: int) -> nn.Sequential:
    layer = convolution(channels, width, kernel)
    nn.init.kaiming_uniform_(layer.weight, a=1)
    return nn.Sequential(layer, nn.BatchNorm2d(width))
