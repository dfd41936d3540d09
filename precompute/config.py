"""What a precompute job is asked for: frozen, the same words as the command line. Imports no torch."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.config import DaliDecoder, Files, Precision, Running
from pipeline.core.errors import ConfigError
from pipeline.core.ranges import ABOVE_0, Range
from pipeline.core.rng import check_seed

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


@dataclass(frozen=True)
class PrecomputeConfig:
    """Fill a store with a teacher's outputs for some augmentation views of a data set.

    Attributes:
        teacher: model, as NAME@WEIGHTS.
        store: folder of the store; made if missing.
        data: folder with train/ and, for the teacher's accuracy, val/, each a folder per class.
        train_dir: training images, where they are not DATA/train.
        val_dir: validation images, where they are not DATA/val.
        index: index file of the training images (default: train.index.h5 beside them, else made in STORE/jobs).
        val_index: index file of the validation images.
        beton: FFCV file with the training images; needs no folder.
        val_beton: FFCV file with the validation images.
        views: the views to compute, FIRST:LAST+1 as Python slices; 0:50 is views 0 to 49.
        keep: codecs, with commas between: dense_f16, affine_u8, topk or topk:K, embedding_f16, embedding_u8.
        policy: augmentation of the views.
        plan_seed: seed of the views; training runs give the same one.
        resolution: side of the pixels that the teacher sees.
        mean: per-channel mean of 0..1 pixels that the teacher was trained with.
        std: per-channel deviation that they are divided by.
        backend: torchvision (the reference), dali, ffcv (with --beton), synthetic, or auto: the fastest that fits (on
            CUDA, dali only in a version that has been proven there).
        dali_decoder: what dali decodes with for a CUDA device: cpu never touches it; mixed is nvJPEG on it, and an
            error where its proof on some of the images fails; auto is mixed where the proof succeeds, else cpu. A store
            keeps its decoder.
        dali_hw_decoder_load: share of each batch that dali's mixed decoder gives to the device's JPEG engines, 0 to 1.
            Above 0 an image's place in the batch decides which decoder makes its pixels.
        precision: teacher's body: auto is fp16 on CUDA and fp32 on CPU. Its pooling and classifier run in float32.
        batch: images per forward pass. The same number at every start: it decides the low bits.
        shard_rows: rows of a file. Multiples of 4096 let readers map a view as one array.
        part: K/N: this job does every N-th unit of work, independent jobs do the others, with the same --views,
            --shard-rows and --views-per-decode.
        views_per_decode: views cut from one decoded image (ffcv and torchvision decode once for all of them).
        expect_top1: the teacher's published top-1 in percent; a measured one more than 0.5 off is refused.
        compile: torch.compile the teacher.
        threads: decoder threads of each rank (default: this process's cores over the ranks that share them).
        device: auto takes CUDA where it is. On the CPU a rank runs the teacher on one core: start a rank a core.
        on_bad_image: stop, or put gray in its place and list it.
        synthetic_samples: images of the synthetic backend.
        synthetic_classes: classes of the synthetic backend.
        dry_run: check everything, say what would be computed, write nothing.
    """

    teacher: str
    store: Path | None = None
    data: Path | None = None
    train_dir: Path | None = None
    val_dir: Path | None = None
    index: Path | None = None
    val_index: Path | None = None
    beton: Path | None = None
    val_beton: Path | None = None
    views: str = "0:1"
    keep: str = "dense_f16"
    policy: str = "imagenet_train"
    plan_seed: int = 0
    resolution: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    backend: str = "auto"
    dali_decoder: DaliDecoder = "auto"
    dali_hw_decoder_load: float = 0.0
    precision: Precision = "auto"
    batch: int = 256
    shard_rows: int = 65536
    part: str = "1/1"
    views_per_decode: int = 1
    expect_top1: float | None = None
    compile: bool = False
    threads: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    on_bad_image: Literal["stop", "gray"] = "stop"
    synthetic_samples: int = 100_000
    synthetic_classes: int = 1000
    dry_run: bool = False

    @property
    def all_views(self) -> range:
        """The views that `views` names."""
        return parse_views(self.views)

    def files(self, folder: Path) -> Files:
        """Where the data are; indexes that have to be made go to `folder`."""
        return Files(
            out=folder,
            data=self.data,
            train_dir=self.train_dir,
            val_dir=self.val_dir,
            train_index=self.index,
            val_index=self.val_index,
            beton=self.beton,
            val_beton=self.val_beton,
        )

    def running(self) -> Running:
        """How the data are read."""
        return Running(
            backend=self.backend,
            dali_decoder=self.dali_decoder,
            dali_hw_decoder_load=self.dali_hw_decoder_load,
            device=self.device,
            threads=self.threads,
            on_bad_image=self.on_bad_image,
            synthetic_samples=self.synthetic_samples,
            synthetic_classes=self.synthetic_classes,
        )


@dataclass(frozen=True)
class PlanConfig:
    """Say what a store would cost, in bytes and hours, and from how many students on it pays. Writes nothing.

    Attributes:
        job: the job in question, with the flags of the real command; --store is asked for its free space only.
        epochs: epochs of one student.
        probe_batches: batches that are loaded and computed to measure the speed of this machine.
    """

    job: PrecomputeConfig
    epochs: int = 100
    probe_batches: int = 8


@dataclass(frozen=True)
class AuditConfig:
    """Compute random rows of a store again, from images and teacher, and compare: what checksums cannot say.

    Ends with 0 where all rows are the teacher's, with 1 and the list of those that are not.

    Attributes:
        teacher: the store's teacher, as NAME@WEIGHTS; its weights must be the store's.
        data: folder with train/.
        train_dir: training images, where they are not DATA/train.
        index: index file of the training images.
        beton: FFCV file with the training images.
        rows: random rows to compute again, spread evenly over the complete views.
        seed: which random rows.
        backend: what makes their pixels (auto: what made the store's; another one's rows may diverge as in training).
        dali_decoder: what dali decodes with for a CUDA device (auto: what decoded the store's, where that was dali).
        device: where the teacher runs; auto takes CUDA where it is.
        threads: decoder threads (default: all cores).
    """

    teacher: str
    data: Path | None = None
    train_dir: Path | None = None
    index: Path | None = None
    beton: Path | None = None
    rows: int = 64
    seed: int = 0
    backend: str = "auto"
    dali_decoder: DaliDecoder = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None


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
    check_seed("--plan-seed", config.plan_seed)
    numbers: dict[str, int | None] = {
        "--resolution": config.resolution,
        "--batch": config.batch,
        "--shard-rows": config.shard_rows,
        "--views-per-decode": config.views_per_decode,
        "--threads": config.threads,
        "--synthetic-samples": config.synthetic_samples,
        "--synthetic-classes": config.synthetic_classes,
    }
    for flag, number in numbers.items():
        if number is not None:
            ABOVE_0.check(flag, number)
    Range(least=0, most=1).check("--mean", config.mean)
    ABOVE_0.check("--std", config.std)
    Range(least=0, most=1).check("--dali-hw-decoder-load", config.dali_hw_decoder_load)
    if config.expect_top1 is not None:
        Range(least=0, most=100).check("--expect-top1", config.expect_top1)


def check_store_named(config: PrecomputeConfig) -> Path:
    """The store's folder.

    Raises:
        ConfigError: none was named.
    """
    if config.store is None:
        raise ConfigError("no store was named: give --store DIR, a folder for the teacher's outputs (made if missing)")
    return config.store
