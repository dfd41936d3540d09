"""Contrastive representation distillation.

Legend: B batch, K negatives, N samples of the data set, E dimensions compared.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import logsigmoid

from pipeline.core.errors import ConfigError
from pipeline.devices.world import World
from pipeline.losses.crd import CRDLoss
from pipeline.methods._shared.connectors import seeded
from pipeline.methods._shared.method import Method, MethodInput, Setting
from pipeline.methods._shared.negatives import NegativeSampler
from pipeline.methods._shared.precision import in_float32

_EPS = 1e-7


class CRD(Method[CRDLoss]):
    """Noise-contrastive estimation: a sample's two embeddings against K others of other classes, from memory banks.

    Both networks' embeddings are projected to E dimensions by trained layers; the banks hold what each sample's
    projections were when it was last seen, N x E float32 each (0.66 GB on ImageNet at E = 128), in the checkpoint and
    not in the exported student. A step reads the banks as they stood before it and writes them after it, from the
    micro-batches of all ranks. A step also gathers 2 B K E numbers from them: 4.2 GB at B = 256 and K = 16384.
    """

    student_bank: torch.Tensor
    teacher_bank: torch.Tensor
    normalisers: torch.Tensor

    def build(self, setting: Setting) -> None:
        """Make the projections, the banks and the sampler of negatives.

        Raises:
            ConfigError: the data set's classes are not known, or the teacher has no embedding.
        """
        if not setting.class_counts:
            raise ConfigError("crd draws negatives from all other classes' samples: it needs the whole data set")
        if setting.teacher_dim is None:
            raise ConfigError("crd compares embeddings: it needs a teacher with a linear classifier")
        num_samples, width = sum(setting.class_counts), self.loss.feature_dim
        self._seen: list[_Seen] = []
        bound = (width / 3) ** -0.5
        with seeded(setting.seed, "crd"):
            self.student_projection = nn.Linear(setting.student_dim, width)
            self.teacher_projection = nn.Linear(setting.teacher_dim, width)
            self.register_buffer("student_bank", torch.empty(num_samples, width).uniform_(-bound, bound))
            self.register_buffer("teacher_bank", torch.empty(num_samples, width).uniform_(-bound, bound))
        # mean score times N of the first step, a constant from then on; 0 is "not yet known"
        self.register_buffer("normalisers", torch.zeros(2))
        self.sampler: nn.Module = NegativeSampler(
            setting.class_counts, num_negatives=self.loss.num_negatives, seed=setting.seed, positive=self.loss.positive
        )

    def forward(self, batch: MethodInput) -> torch.Tensor:
        """Both directions: the student against the teacher's bank, the teacher against the student's."""
        assert batch.student.embedding is not None
        assert batch.taught.embedding is not None
        student_BE = _unit(self.student_projection(in_float32(batch.student.embedding)))
        teacher_BE = _unit(self.teacher_projection(in_float32(batch.taught.embedding)))
        contrast_BK: torch.Tensor = self.sampler(batch.labels, batch.ids, batch.epoch)
        of_student_BK = self._scores(self.teacher_bank, contrast_BK, student_BE)
        of_teacher_BK = self._scores(self.student_bank, contrast_BK, teacher_BE)
        means = torch.stack([scores.detach().exp().mean() for scores in (of_student_BK, of_teacher_BK)])
        if self.training:
            self._seen.append(_Seen(batch.ids, student_BE.detach(), teacher_BE.detach(), means))
        normalisers = torch.where(self.normalisers > 0, self.normalisers, means * len(self.student_bank))
        first, second = normalisers.log()
        return self._estimate(of_student_BK - first) + self._estimate(of_teacher_BK - second)

    def begin_step(self) -> None:
        """Forget embeddings of passes outside of steps."""
        self._seen.clear()

    @torch.no_grad()
    def end_step(self, world: World, num_micro_batches: int) -> None:
        """Write every seen sample's row in both banks, on every rank, and fix the normalisers in the first step."""
        seen = _over_ranks(self._seen, world, num_micro_batches)
        self._seen.clear()
        for bank, rows_SE in ((self.student_bank, seen.student), (self.teacher_bank, seen.teacher)):
            mixed_SE = self.loss.momentum * bank[seen.ids] + (1 - self.loss.momentum) * rows_SE
            bank.index_copy_(0, seen.ids, _unit(mixed_SE))
        first = seen.means * len(self.student_bank)
        self.normalisers.copy_(torch.where(self.normalisers > 0, self.normalisers, first))

    def _scores(self, bank_NE: torch.Tensor, contrast_BK: torch.Tensor, query_BE: torch.Tensor) -> torch.Tensor:
        """(B, K + 1) logarithms of exp(<bank row, query> / temperature)."""
        rows_BKE = bank_NE[contrast_BK]
        return torch.bmm(rows_BKE, query_BE[:, :, None])[:, :, 0] / self.loss.contrast_temperature

    def _estimate(self, log_BK: torch.Tensor) -> torch.Tensor:
        """-[log x_0 / (x_0 + c) + sum over k of log (K / N) / (x_k + c)], mean over B, from log x; c = K / N + 1e-7."""
        density = (log_BK.shape[1] - 1) / len(self.student_bank)
        shifted_BK = log_BK - math.log(density + _EPS)
        # x / (x + c) = sigmoid(log x - log c);  (K / N) / (x + c) = (K / N) / c sigmoid(log c - log x)
        positive_B = logsigmoid(shifted_BK[:, 0])
        constant = math.log(density / (density + _EPS))
        negative_B = (logsigmoid(-shifted_BK[:, 1:]) + constant).sum(dim=1)
        return -(positive_B + negative_B).mean()


@dataclass(frozen=True)
class _Seen:
    """Micro-batches that went by: ids (S,), projections (S, E), and the mean scores (2,)."""

    ids: torch.Tensor
    student: torch.Tensor
    teacher: torch.Tensor
    means: torch.Tensor


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def _over_ranks(own: list[_Seen], world: World, num_micro_batches: int) -> _Seen:
    """All micro-batches of the step, in their order whatever the ranks; ranks with one fewer repeat their last."""
    most = -(-num_micro_batches // world.size)
    padded = own + [own[-1]] * (most - len(own))

    def gather(parts: list[torch.Tensor]) -> torch.Tensor:
        dealt = world.stack(torch.stack(parts)).transpose(0, 1)
        return dealt.flatten(0, 1)[:num_micro_batches]

    return _Seen(
        gather([part.ids for part in padded]).flatten(),
        gather([part.student for part in padded]).flatten(0, 1),
        gather([part.teacher for part in padded]).flatten(0, 1),
        gather([part.means for part in padded]).mean(dim=0),
    )
