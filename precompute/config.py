"""What a precompute job is asked for: frozen, the same words as the command line. Imports no torch."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pipeline.config import DaliDecoder, Device, Files, Images, Pixels, Reading, TeacherPrecision, Threads, TrainImages
from pipeline.core.errors import ConfigError
from pipeline.core.fields import About, check_numbers
from pipeline.core.ranges import ABOVE_0, SEED, Range

_VIEWS = re.compile(r"(\d+):(\d+)")
_PART = re.compile(r"(\d+)/(\d+)")
_MAX_VIEWS = 100_000


@dataclass(frozen=True)
class Part:
    """One of several independent jobs that fill a store together.

    Attributes:
        number: 1 .. total.
        total: the jobs.
    """

    number: int = 1
    total: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    @property
    def folder_name(self) -> str:
        """Of the job's folder in STORE/jobs."""
        return f"part-{self.number}-of-{self.total}"


# fmt: off
@dataclass(frozen=True)
class PrecomputeConfig:
    """Fill a store with a teacher's outputs for some augmentation views of a data set."""

    teacher: Annotated[str, About("model, as NAME@WEIGHTS.")]
    store: Annotated[Path | None, About("folder of the store; made if missing.")] = None
    images: Images = field(default_factory=Images)
    index: Annotated[Path | None, About(
        "index file of the training images (default: train.index.h5 beside them, else made in STORE/jobs).")] = None
    views: Annotated[str, About(
        "the views to compute, FIRST:LAST+1 as Python slices; 0:50 is views 0 to 49.")] = "0:1"
    keep: Annotated[str, About(
        "codecs, with commas between: dense_f16, affine_u8, topk or topk:K, embedding_f16, embedding_u8."
    )] = "dense_f16"
    pixels: Pixels = field(default_factory=Pixels)
    reading: Reading = field(default_factory=Reading)
    precision: TeacherPrecision = "auto"
    batch: Annotated[int, About(
        "images per forward pass. The same number at every start: it decides the low bits.", ABOVE_0)] = 256
    shard_rows: Annotated[int, About(
        "rows of a file. Multiples of 4096 let readers map a view as one array.", ABOVE_0)] = 65536
    part: Annotated[str, About(
        "K/N: this job does every N-th unit of work, independent jobs do the others, with the same --views,"
        " --shard-rows and --views-per-decode.")] = "1/1"
    views_per_decode: Annotated[int, About(
        "views cut from one decoded image (ffcv and torchvision decode once for all of them).", ABOVE_0)] = 1
    expect_top1: Annotated[float | None, About(
        "the teacher's published top-1 in percent; a measured one more than 0.5 off is refused.",
        Range(least=0, most=100))] = None
    compile: Annotated[bool, About("torch.compile the teacher.")] = False
    device: Annotated[Device, About(
        "auto takes CUDA where it is. On the CPU a rank runs the teacher on one core: start a rank a core.")] = "auto"
    dry_run: Annotated[bool, About("check everything, say what would be computed, write nothing.")] = False

    @property
    def all_views(self) -> range:
        """The views that `views` names."""
        return parse_views(self.views)

    def files(self, folder: Path) -> Files:
        """Where the data are; indexes that have to be made go to `folder`."""
        return Files(out=folder, train_index=self.index, **vars(self.images))


@dataclass(frozen=True)
class PlanConfig:
    """Say what a store would cost, in bytes and hours, and from how many students on it pays. Writes nothing.

    The job in question has the flags of the real command; --store is asked for its free space only.
    """

    job: PrecomputeConfig
    epochs: Annotated[int, About("epochs of one student.", ABOVE_0)] = 100
    probe_batches: Annotated[int, About(
        "batches that are loaded and computed to measure the speed of this machine.", ABOVE_0)] = 8


@dataclass(frozen=True)
class AuditConfig:
    """Compute random rows of a store again, from images and teacher, and compare: what checksums cannot say.

    Ends with 0 where all rows are the teacher's, with 1 and the list of those that are not.
    """

    teacher: Annotated[str, About("the store's teacher, as NAME@WEIGHTS; its weights must be the store's.")]
    images: TrainImages = field(default_factory=TrainImages)
    index: Annotated[Path | None, About("index file of the training images.")] = None
    rows: Annotated[int, About(
        "random rows to compute again, spread evenly over the complete views.", ABOVE_0)] = 64
    seed: Annotated[int, About("which random rows.", SEED)] = 0
    backend: Annotated[str, About(
        "what makes their pixels (auto: what made the store's; another one's rows may diverge as in training)."
    )] = "auto"
    dali_decoder: Annotated[DaliDecoder, About(
        "what dali decodes with for a CUDA device (auto: what decoded the store's, where that was dali).")] = "auto"
    device: Annotated[Device, About("where the teacher runs; auto takes CUDA where it is.")] = "auto"
    threads: Threads = None


# fmt: on
def parse_views(text: str) -> range:
    """The views of "FIRST:LAST+1".

    Raises:
        ConfigError: anything else, or no view at all.
    """
    match = _VIEWS.fullmatch(text)
    views = range(int(match[1]), int(match[2])) if match else range(0)
    if not 0 < len(views) <= _MAX_VIEWS:
        raise ConfigError(f"--views is FIRST:END, such as 0:50 for views 0 to 49, and not empty; got '{text}'")
    return views


def parse_part(text: str) -> Part:
    """The part of "K/N", 1 <= K <= N.

    Raises:
        ConfigError: anything else.
    """
    match = _PART.fullmatch(text)
    part = Part(int(match[1]), int(match[2])) if match else Part(0)
    if not 1 <= part.number <= part.total:
        raise ConfigError(f"--part is K/N with K from 1 to N, such as 3/16; got '{text}'")
    return part


def check_config(config: PrecomputeConfig) -> None:
    """Refuse values that no job can have, by flag.

    Raises:
        ConfigError: with the flag and the value.
    """
    parse_views(config.views)
    parse_part(config.part)
    check_numbers(config)


def check_store_named(config: PrecomputeConfig) -> Path:
    """The store's folder.

    Raises:
        ConfigError: none was named.
    """
    if config.store is None:
        raise ConfigError("no store was named: give --store DIR, a folder for the teacher's outputs (made if missing)")
    return config.store
