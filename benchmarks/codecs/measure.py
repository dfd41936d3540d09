"""What codecs make of a teacher's rows.

A real teacher looks at real views; each codec encodes and decodes what it gave; the gradient that a student would get
from the decoded logits is compared with the one from the teacher's own, in float64, so that what shows is the codec.
Student logits are random, normal, with the teacher's standard deviation.

Legend: N rows, C classes, D embedding.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from benchmarks._shared.imagenet import SAMPLES
from benchmarks._shared.pixels import plan_rows
from benchmarks.codecs import Codecs
from pipeline.core.cpu import usable_cpus
from pipeline.data.backend import BackendOptions, Source, open_backend
from pipeline.data.index import Index
from pipeline.data.plan import PlanRows
from pipeline.data.policy import get_policy
from pipeline.data.scan import scan_folder
from pipeline.kernels import dkd
from pipeline.kernels.kl import kl
from pipeline.models.spec import resolve_model
from pipeline.teachers.preparation import preparation
from pipeline.teachers.rebuild import build_teacher
from pipeline.teachers.runner import TeacherRunner
from stores.codec import Codec
from stores.codec_registry import parse_codecs

_BATCH = 64
_STUDENT_SEED = 0
DEFAULT_CODECS = (
    "dense_f16", "affine_u8", "embedding_f16", "embedding_u8", "topk:5", "topk:10", "topk:20", "topk:50", "topk:100",
)  # fmt: skip
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

# DKD with mdistiller's weights for ImageNet (T = 1) and CIFAR (T = 4)
LOSSES: dict[str, Loss] = {
    "KD T=1": lambda student, teacher, _: kl(student, teacher, 1.0),
    "KD T=4": lambda student, teacher, _: kl(student, teacher, 4.0),
    "DKD T=1 b=.5": lambda student, teacher, labels: dkd.reference(student, teacher, labels, 1.0, alpha=1, beta=0.5),
    "DKD T=4 b=8": lambda student, teacher, labels: dkd.reference(student, teacher, labels, 4.0, alpha=1, beta=8),
}


@dataclass(frozen=True)
class TeacherRows:
    """What the teacher gave.

    Attributes:
        logits_NC: float32.
        embedding_ND: float32.
        labels_N: int64.
        weight_CD: of its head.
        bias_C: of its head.
    """

    logits: Tensor
    embedding: Tensor
    labels: Tensor
    weight: Tensor
    bias: Tensor

    @property
    def top1(self) -> float:
        """Percent of the rows whose greatest logit is their label's."""
        return 100 * (self.logits.argmax(1) == self.labels).double().mean().item()


@dataclass(frozen=True)
class Distortion:
    """One codec's line.

    Attributes:
        codec: as on the command line.
        row_bytes: of an encoded row, without label and checksums.
        imagenet_gb: of a view of 1,281,167 such rows.
        kl: mean KL(teacher || decoded) at temperature 1, nats.
        top1_kept: percent of the rows whose greatest logit is the same class.
        gradient_errors: loss to |g - g_decoded| / |g| over all rows, g the gradient with respect to student logits.
    """

    codec: str
    row_bytes: int
    imagenet_gb: float
    kl: float
    top1_kept: float
    gradient_errors: dict[str, float]


def check_teacher(settings: Codecs) -> None:
    """Refuse a teacher or a policy that nobody knows.

    Raises:
        ConfigError: with the nearest known name.
    """
    resolve_model(settings.teacher, role="teacher")
    get_policy(settings.policy)


def teacher_rows(settings: Codecs, on_progress: Callable[[int, int], None]) -> TeacherRows:
    """Run the teacher on `settings.rows` views through the torchvision backend, on the CPU in float32.

    Raises:
        ConfigError: unknown teacher or policy, weights that do not fit the folder's number of classes.
    """
    index, _ = scan_folder(settings.data)
    network, _ = build_teacher(settings.teacher, num_classes=len(index.classes))
    cpu = torch.device("cpu")
    prepare = preparation(settings.mean, settings.std, cpu, torch.channels_last)
    teacher = TeacherRunner(network, device=cpu, precision="fp32", prepare=prepare, batch=_BATCH)
    options = BackendOptions(settings.resolution, settings.threads or usable_cpus(), _BATCH)
    logits, embeddings, labels = [], [], []
    wanted, given = itertools.tee(_requests(index, settings))
    with closing(open_backend("torchvision", Source(index), options)) as backend:
        for pixels, rows in zip(backend.stream(wanted), given, strict=True):
            outputs = teacher.of_pixels(pixels.images)
            assert outputs.embedding is not None, "a Network always gives its embedding"
            logits.append(outputs.logits)
            embeddings.append(outputs.embedding)
            labels.append(torch.from_numpy(index.labels[index.rows_of(rows.ids)]).long())
            on_progress(sum(map(len, logits)), settings.rows)
    weight, bias = teacher.head()
    return TeacherRows(torch.cat(logits), torch.cat(embeddings), torch.cat(labels), weight, bias)


def measure_codecs(rows: TeacherRows, names: tuple[str, ...] = DEFAULT_CODECS) -> list[Distortion]:
    """A line for each codec that fits the teacher (a top-k that keeps all classes does not)."""
    num_classes, embedding_dim = rows.weight.shape
    fitting = [name for name in names if int(name.partition(":")[2] or 0) < num_classes]
    codecs = [parse_codecs(name, num_classes=num_classes, embedding_dim=embedding_dim)[0] for name in fitting]
    return [measure_codec(name, codec, rows) for name, codec in zip(fitting, codecs, strict=True)]


def measure_codec(name: str, codec: Codec, rows: TeacherRows) -> Distortion:
    """Encode and decode the rows, and compare what losses make of them."""
    exact, decoded = rows.logits.double(), _decoded_logits(codec, rows).double()
    generator = torch.Generator().manual_seed(_STUDENT_SEED)
    student = torch.randn(exact.shape, generator=generator, dtype=torch.float64) * exact.std()
    return Distortion(
        codec=name,
        row_bytes=codec.row_bytes,
        imagenet_gb=codec.row_bytes * SAMPLES / 1e9,
        kl=kl(decoded, exact, 1.0).item(),
        top1_kept=100 * (decoded.argmax(1) == exact.argmax(1)).double().mean().item(),
        gradient_errors={
            title: relative_error(
                gradient(loss, student, decoded, rows.labels), gradient(loss, student, exact, rows.labels)
            )
            for title, loss in LOSSES.items()
        },
    )


def gradient(loss: Loss, student_NC: Tensor, teacher_NC: Tensor, labels_N: Tensor) -> Tensor:
    """The loss's gradient with respect to the student's logits, (N, C)."""
    student_NC = student_NC.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(student_NC, teacher_NC, labels_N), student_NC)
    return found


def relative_error(found: Tensor, exact: Tensor) -> float:
    """|found - exact| / |exact|, Euclidean norms over everything."""
    return ((found - exact).norm() / exact.norm()).item()


def to_json(settings: Codecs, rows: TeacherRows, lines: list[Distortion]) -> dict[str, Any]:
    """All figures; the teacher's weights file by its name."""
    name, at, weights = settings.teacher.partition("@")
    return {
        "settings": {**settings.settings(), "teacher": f"{name}{at}{Path(weights).name}"},
        "teacher_top1": rows.top1,
        "num_classes": rows.weight.shape[0],
        "embedding_dim": rows.weight.shape[1],
        "codecs": [asdict(line) for line in lines],
    }


def _requests(index: Index, settings: Codecs) -> Iterator[PlanRows]:
    """Every image's first view, spread over the classes, then every image's second."""
    spread = np.random.default_rng(0).permutation(len(index))
    for first in range(0, settings.rows, _BATCH):
        turns = np.arange(first, min(first + _BATCH, settings.rows))
        yield plan_rows(index, spread[turns % len(index)], turns // len(index), settings.policy)


def _decoded_logits(codec: Codec, rows: TeacherRows) -> Tensor:
    kept = rows.logits if codec.source == "logits" else rows.embedding
    fields = {name: torch.from_numpy(array) for name, array in codec.encode(kept.numpy()).items()}
    decoded: Tensor = codec.decode_tensors(fields)
    return decoded if codec.source == "logits" else linear(decoded, rows.weight, rows.bias)
