"""One run's configuration: frozen, JSON both ways, the same words as the command line. Imports no torch.

Every field is one flag, and its annotation says what it is, which numbers it takes, and whether it is free. Two runs
with the same resolved configuration are the same run: on resume the saved one is compared field by field, except for
the free ones, which cannot change a number of the result.

Groups that precompute and audit take as well (`TrainImages`, `Images`, `Pixels`, `Reading`) are the bases of a run's.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pipeline.core.encoding import all_numbers, decode, paired
from pipeline.core.errors import ConfigError
from pipeline.core.fields import About, check_numbers, flag, leaves
from pipeline.core.ranges import ABOVE_0, ANY, NOT_NEGATIVE, SEED, SHARE, Range
from pipeline.losses._shared.record import Loss
from pipeline.losses._shared.registry import loss_record

Amp = Literal["auto", "off", "bf16", "fp16"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
DaliDecoder = Literal["auto", "cpu", "mixed"]
Device = Literal["auto", "cpu", "cuda"]
TeacherSource = Literal["auto", "stored", "online", "hybrid"]
Channels = tuple[float, float, float]
_UNIT = Range(least=0, most=1)

# A field's words stand below it where the line is too short: half the lines of the formatter's layout.
# fmt: off
TeacherPrecision = Annotated[Precision, About(
    "teacher's body: auto is fp16 on CUDA and fp32 on CPU. Its pooling and classifier run in float32.")]
Threads = Annotated[int | None, About(
    "decoder threads of each rank (default: this process's cores over the ranks that share them).", ABOVE_0, free=True)]


@dataclass(frozen=True)
class TrainImages:
    """Where training images are read."""

    data: Annotated[Path | None, About(
        "folder with train/ and, where accuracy is measured, val/, each a folder per class.", free=True)] = None
    train_dir: Annotated[Path | None, About("training images, where they are not DATA/train.", free=True)] = None
    beton: Annotated[Path | None, About("FFCV file with the training images; needs no folder.", free=True)] = None


@dataclass(frozen=True)
class Images(TrainImages):
    """Where images are read."""

    val_dir: Annotated[Path | None, About("validation images, where they are not DATA/val.", free=True)] = None
    val_index: Annotated[Path | None, About("index file of the validation images.", free=True)] = None
    val_beton: Annotated[Path | None, About("FFCV file with the validation images.", free=True)] = None


@dataclass(frozen=True, kw_only=True)
class Files(Images):
    """Where a run reads and writes."""

    out: Annotated[Path, About("run directory; made if missing; holds everything that the run writes.", free=True)]
    train_index: Annotated[Path | None, About(
        "index file of the training images (default: train.index.h5 beside them, else made in RUN).", free=True)] = None
    subset: Annotated[str | None, About(
        "part of the training data: a share such as 10%, or class names joined by commas.")] = None
    store: Annotated[Path | None, About(
        "folder with teacher outputs, filled by `python -m precompute`.", free=True)] = None
    stage: Annotated[Path | None, About(
        "folder on fast local storage (a local disk, /dev/shm) to which the next epoch's view is copied meanwhile.",
        free=True)] = None
    trace: Annotated[Path | None, About(
        "folder for one JSON line per rank and step: ids, plan and pixel checksums.", free=True)] = None


@dataclass(frozen=True)
class Pixels:
    """What a network sees of the training images."""

    policy: Annotated[str, About("augmentation of the training views.")] = "imagenet_train"
    plan_seed: Annotated[int, About(
        "seed of the views; runs that share it share teacher outputs, whatever their run seed.", SEED)] = 0
    resolution: Annotated[int, About("side of the training pixels.", ABOVE_0)] = 224
    mean: Annotated[Channels, About(
        "per-channel mean of 0..1 pixels that the teacher was trained with.", _UNIT)] = (0.485, 0.456, 0.406)
    std: Annotated[Channels, About("per-channel deviation that they are divided by.", ABOVE_0)] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Views(Pixels):
    """What the networks see."""

    mean: Annotated[Channels, About(
        "per-channel mean of 0..1 pixels, taken off before the student.", _UNIT)] = Pixels.mean
    val_policy: Annotated[str, About("the evaluation view.")] = "imagenet_eval"
    val_resolution: Annotated[int | None, About(
        "side of the evaluation pixels (default: the training side).", ABOVE_0)] = None
    num_views: Annotated[int | None, About(
        "views in rotation, one an epoch (default: a new view every epoch).", ABOVE_0)] = None
    teacher_mean: Annotated[Channels | None, About("the same for the teacher (default: the student's).", _UNIT)] = None
    teacher_std: Annotated[Channels | None, About("the same for the teacher (default: the student's).", ABOVE_0)] = None


@dataclass(frozen=True)
class Teaching:
    """Where the teacher's outputs come from."""

    teacher_source: Annotated[TeacherSource, About(
        "stored rows, the online network, or hybrid: stored views from the store, others online. auto is stored where"
        " the store holds what the method needs; else it says what is missing and runs online.")] = "auto"
    store_io: Annotated[Literal["auto", "mmap", "pread"], About(
        "how rows are read: memory map, pread, or auto (pread on network file systems).", free=True)] = "auto"
    check_rows: Annotated[bool, About("compare the checksum of every row that is read.", free=True)] = True
    max_divergence: Annotated[float | None, About(
        "greatest mean KL (nats) between stored rows and the teacher on this run's pixels, measured where they are made"
        " otherwise than the store's (default: ten times the store's noise floor and rounding, at least 1e-5).",
        NOT_NEGATIVE, free=True)] = None


@dataclass(frozen=True)
class Optimisation:
    """How the weights move."""

    epochs: Annotated[int, About("passes over the training data.", ABOVE_0)] = 100
    batch: Annotated[int, About("global batch, over all ranks.", ABOVE_0)] = 256
    micro_batches: Annotated[int | None, About(
        "equal parts of the batch, dealt whole to ranks (None: one a rank at the first start). Results do not depend on"
        " the number of ranks for a fixed number of micro-batches.", ABOVE_0)] = None
    max_micro_batch: Annotated[int | None, About(
        "at the first start, cut the batch into the fewest equal parts that are no larger than this, and no fewer than"
        " ranks (default: one part a rank). --micro-batches wins over it.", ABOVE_0, free=True)] = None
    lr: Annotated[float, About("learning rate at the given batch.", ABOVE_0)] = 0.1
    optimizer: Annotated[Literal["sgd", "adam", "adamw"], About("sgd, adam or adamw.")] = "sgd"
    momentum: Annotated[float, About("of SGD.", SHARE)] = 0.9
    nesterov: Annotated[bool, About("Nesterov's form of SGD's momentum.")] = False
    betas: Annotated[tuple[float, float], About("of Adam and AdamW.", SHARE)] = (0.9, 0.999)
    weight_decay: Annotated[float, About("decay of all parameters, or as `decay` says.", NOT_NEGATIVE)] = 1e-4
    decay: Annotated[Literal["all", "weights"], About(
        "all parameters (as the public distillation code does), or only weights (not BN, biases, temperatures)."
    )] = "all"
    schedule: Annotated[Literal["step", "cosine", "constant"], About("step, cosine or constant.")] = "step"
    milestones: Annotated[tuple[int, ...], About(
        "epochs, from 0, at which `step` multiplies the rate by gamma.", NOT_NEGATIVE)] = (30, 60, 90)
    gamma: Annotated[float, About("factor of `step`.", Range(above=0, most=1))] = 0.1
    warmup_epochs: Annotated[float, About("epochs over which the rate rises linearly from zero.", NOT_NEGATIVE)] = 0.0
    label_smoothing: Annotated[float, About("of the cross-entropy with the labels.", SHARE)] = 0.0
    ema_decay: Annotated[float | None, About(
        "decay per step of an averaged copy of the student, evaluated and saved beside it (default: none).",
        Range(above=0, below=1))] = None
    clip_norm: Annotated[float | None, About(
        "greatest norm of the whole gradient (default: unlimited).", ABOVE_0)] = None
    max_steps: Annotated[int | None, About(
        "stop after this many steps in all (default: all epochs). The schedule stays that of all epochs.",
        ABOVE_0, free=True)] = None
    run_seed: Annotated[int, About("seed of the experiment: initialisation, order, dropout.", SEED)] = 0


@dataclass(frozen=True)
class Numerics:
    """In which precision, and how fixed."""

    amp: Annotated[Amp, About(
        "student's autocast: auto is bf16 on CUDA and off on CPU. Classifiers and losses always run in float32."
    )] = "auto"
    teacher_precision: TeacherPrecision = "auto"
    channels_last: Annotated[bool, About("memory format of networks and images.")] = True
    compile: Annotated[bool, About("torch.compile student and teacher.")] = False
    cuda_graphs: Annotated[Literal["off", "teacher"], About(
        "`teacher` launches the online teacher as one CUDA graph: for batches too small to keep the device busy while"
        " the host launches kernel by kernel.", free=True)] = "off"
    sync_bn: Annotated[bool, About(
        "batch statistics over all ranks' micro-batches, of student and connectors (ties the result to the number of"
        " ranks).")] = False
    deterministic: Annotated[bool, About("only deterministic device kernels, no autotuning; slower.")] = False


@dataclass(frozen=True)
class Reading:
    """How images become pixels."""

    backend: Annotated[str, About(
        "torchvision (the reference), dali, ffcv (with --beton), synthetic, or auto: the fastest that fits (on CUDA,"
        " dali only in a version that has been proven there).")] = "auto"
    dali_decoder: Annotated[DaliDecoder, About(
        "what dali decodes with for a CUDA device: cpu never touches it; mixed is nvJPEG on it, and an error where its"
        " proof on some of the images fails; auto is mixed where the proof succeeds, else cpu. A run keeps its decoder,"
        " and so does a store.")] = "auto"
    dali_hw_decoder_load: Annotated[float, About(
        "share of each batch that dali's mixed decoder gives to the device's JPEG engines, 0 to 1. Above 0 an image's"
        " place in the batch decides which decoder makes its pixels.", _UNIT)] = 0.0
    threads: Threads = None
    on_bad_image: Annotated[Literal["stop", "gray"], About(
        "stop, or put gray in its place and list it.", free=True)] = "stop"
    synthetic_samples: Annotated[int, About("images of the synthetic backend.", ABOVE_0)] = 100_000
    synthetic_classes: Annotated[int, About("classes of the synthetic backend.", ABOVE_0)] = 1000


@dataclass(frozen=True)
class Running(Reading):
    """How the job runs; nothing here changes a result, but for the pixels of another backend."""

    device: Annotated[Device, About("auto takes CUDA where it is.")] = "auto"
    prefetch: Annotated[int, About("requests decoded ahead.", ABOVE_0, free=True)] = 3
    eval_every: Annotated[int, About(
        "epochs between evaluations; the last epoch is always evaluated.", ABOVE_0, free=True)] = 1
    eval_batch: Annotated[int, About("images per evaluation batch.", ABOVE_0)] = 256
    checkpoint_every: Annotated[int | None, About(
        "steps between checkpoints (default: at the end of every epoch only).", ABOVE_0, free=True)] = None
    keep: Annotated[int, About("checkpoints kept, besides the best.", ABOVE_0, free=True)] = 2
    log_every: Annotated[int, About("steps between lines of metrics.jsonl.", ABOVE_0, free=True)] = 10
    dry_run: Annotated[bool, About("print what would run, check everything, train nothing.", free=True)] = False


# fmt: on
@dataclass(frozen=True)
class Settings:
    """What recipes share and set their own defaults for."""

    views: Views = field(default_factory=Views)
    teaching: Teaching = field(default_factory=Teaching)
    optimisation: Optimisation = field(default_factory=Optimisation)
    numerics: Numerics = field(default_factory=Numerics)
    running: Running = field(default_factory=Running)


@dataclass(frozen=True)
class RunConfig:
    """Everything that defines a run."""

    recipe: Annotated[str, About("name of the recipe that made it.")]
    student: Annotated[str, About("model, as NAME[@WEIGHTS].")]
    teacher: Annotated[str | None, About("model, as NAME@WEIGHTS; None where the method needs no teacher.")]
    method: Annotated[str, About("name of the distillation method.")]
    files: Files
    method_args: Annotated[dict[str, Any], About("its hyper-parameters.")] = field(default_factory=dict)
    views: Views = field(default_factory=Views)
    teaching: Teaching = field(default_factory=Teaching)
    optimisation: Optimisation = field(default_factory=Optimisation)
    numerics: Numerics = field(default_factory=Numerics)
    running: Running = field(default_factory=Running)

    @classmethod
    def of(
        cls, recipe: str, student: str, teacher: str | None, loss: Loss, files: Files, settings: Settings
    ) -> "RunConfig":
        """The run in which `student` learns by `loss`, from `teacher` where that needs one."""
        return cls(recipe, student, teacher, loss.name, files, loss.to_json(), **vars(settings))

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal configuration."""
        encoded: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return encoded

    @classmethod
    def from_json(cls, encoded: dict[str, Any]) -> "RunConfig":
        """Inverse of `to_json`. Unknown fields (of a newer version) are refused."""
        config: RunConfig = decode(cls, encoded, cls.__name__)
        return config if "dali_decoder" in encoded.get("running", {}) else _with_former_decoder(config)


_TRAINING_NAMES = {item.name for group in (Files, *get_type_hints(Settings).values()) for item in fields(group)}


def first_difference(saved: RunConfig, now: RunConfig) -> tuple[str, Any, Any] | None:
    """The first field, as `group.field`, that two configurations do not share, with both values; free ones left out."""
    free = {path for path, _, about in leaves(now) if about is not None and about.free}
    for name, before, after in paired(_complete(saved), _complete(now), ""):
        if before != after and name not in free:
            return name, before, after
    return None


def check_config(config: RunConfig) -> None:
    """Refuse values that no run can have, by flag."""
    check_numbers(config)
    for path, value in all_numbers(config.method_args, ""):  # finite; their ranges are the method's
        ANY.check(method_flag(path.rpartition(".")[2]), value)
    _check_teaching(config)
    optimisation = config.optimisation
    if optimisation.nesterov and (optimisation.optimizer != "sgd" or optimisation.momentum == 0):
        raise ConfigError("--nesterov needs --optimizer sgd and a momentum above 0")
    if optimisation.micro_batches:
        check_divides(optimisation.batch, optimisation.micro_batches, "--micro-batches")
    milestones = optimisation.milestones
    if any(late <= early for early, late in pairwise(milestones)):
        raise ConfigError(f"--milestones must rise, got {_joined(milestones)}: give {_joined(sorted(set(milestones)))}")


def check_divides(batch: int, micro_batches: int, cause: str) -> None:
    """Refuse a batch that cannot be cut into equal micro-batches, whose number is from `cause`."""
    if batch % micro_batches:
        near = max(micro_batches, batch // micro_batches * micro_batches)
        raise ConfigError(
            f"--batch {batch} is not divisible by {cause} ({micro_batches}).\n"
            f"Use --batch {near} or {near + micro_batches}, or give --micro-batches."
        )


def schedule_warnings(optimisation: Optimisation) -> list[str]:
    """What a schedule may be and is hardly meant to be: a rate that is never lowered, or never reached."""
    epochs, milestones = optimisation.epochs, optimisation.milestones
    warnings = []
    if optimisation.schedule == "step" and milestones and min(milestones) >= epochs:
        warnings.append(
            f"the learning rate is never lowered: --epochs {epochs} end before the first of --milestones"
            f" {_joined(milestones)}. Give milestones below {epochs}, or --schedule cosine."
        )
    if optimisation.warmup_epochs >= epochs:
        warnings.append(
            f"the learning rate never reaches --lr: --warmup-epochs {optimisation.warmup_epochs:g} of --epochs"
            f" {epochs}. Give --warmup-epochs below {epochs}."
        )
    return warnings


def method_flag(name: str) -> str:
    """The flag of a method's hyper-parameter: `--method-NAME` where the training has one of its own that is --NAME."""
    return flag(f"method_{name}" if name in _TRAINING_NAMES else name)


def _complete(config: RunConfig) -> dict[str, Any]:
    """Its JSON with every hyper-parameter of its method: one that it was saved without has its default."""
    return {**config.to_json(), "method_args": loss_record(config.method, config.method_args).to_json()}


def _with_former_decoder(config: RunConfig) -> RunConfig:
    """A resolved configuration of a version that did not choose: DALI decoded on the device of the run."""
    running = config.running
    if running.backend != "dali":
        return config
    return replace(config, running=replace(running, dali_decoder="mixed" if running.device == "cuda" else "cpu"))


def _check_teaching(config: RunConfig) -> None:
    store, teaching = config.files.store, config.teaching
    if store is None and teaching.teacher_source in ("stored", "hybrid"):
        raise ConfigError(f"--teacher-source {teaching.teacher_source} reads a store: give --store DIR")
    if store is None and config.files.stage is not None:
        raise ConfigError("--stage copies views of a store: give --store DIR")


def _joined(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))
