"""One run's configuration: frozen, JSON both ways, the same words as the command line. Imports no torch.

Every field is one flag. Two runs with the same resolved configuration are the same run: on resume the saved one is
compared field by field, except for `FREE_FIELDS`, which cannot change a number of the result.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pipeline.core.encoding import all_numbers, decode, paired
from pipeline.core.errors import ConfigError
from pipeline.core.ranges import ABOVE_0, ANY, NOT_NEGATIVE, SEED, SHARE, Range
from pipeline.losses._shared.record import Loss
from pipeline.losses._shared.registry import loss_record

Amp = Literal["auto", "off", "bf16", "fp16"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
DaliDecoder = Literal["auto", "cpu", "mixed"]
TeacherSource = Literal["auto", "stored", "online", "hybrid"]


@dataclass(frozen=True)
class Files:
    """Where a run reads and writes.

    Attributes:
        out: run directory; made if missing; holds everything that the run writes.
        data: folder with train/ and val/, each a folder per class.
        train_dir: training images, where they are not DATA/train.
        val_dir: validation images, where they are not DATA/val.
        train_index: index file of the training images (default: train.index.h5 beside them, else made in RUN).
        val_index: index file of the validation images.
        beton: FFCV file with the training images; needs no folder.
        val_beton: FFCV file with the validation images.
        subset: part of the training data: a share such as 10%, or class names joined by commas.
        store: folder with teacher outputs, filled by `python -m precompute`.
        stage: folder on fast local storage (a local disk, /dev/shm) to which the next epoch's view is copied meanwhile.
        trace: folder for one JSON line per rank and step: ids, plan and pixel checksums.
    """

    out: Path
    data: Path | None = None
    train_dir: Path | None = None
    val_dir: Path | None = None
    train_index: Path | None = None
    val_index: Path | None = None
    beton: Path | None = None
    val_beton: Path | None = None
    subset: str | None = None
    store: Path | None = None
    stage: Path | None = None
    trace: Path | None = None


@dataclass(frozen=True)
class Views:
    """What the networks see.

    Attributes:
        policy: augmentation of the training views.
        val_policy: the evaluation view.
        resolution: side of the training pixels.
        val_resolution: side of the evaluation pixels (default: the training side).
        plan_seed: seed of the views; runs that share it share teacher outputs, whatever their run seed.
        num_views: views in rotation, one an epoch (default: a new view every epoch).
        mean: per-channel mean of 0..1 pixels, taken off before the student.
        std: per-channel deviation that they are divided by.
        teacher_mean: the same for the teacher (default: the student's).
        teacher_std: the same for the teacher (default: the student's).
    """

    policy: str = "imagenet_train"
    val_policy: str = "imagenet_eval"
    resolution: int = 224
    val_resolution: int | None = None
    plan_seed: int = 0
    num_views: int | None = None
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    teacher_mean: tuple[float, float, float] | None = None
    teacher_std: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Teaching:
    """Where the teacher's outputs come from.

    Attributes:
        teacher_source: stored rows, the online network, or hybrid: stored views from the store, others online. auto is
            stored where the store holds what the method needs; else it says what is missing and runs online.
        store_io: how rows are read: memory map, pread, or auto (pread on network file systems).
        check_rows: compare the checksum of every row that is read.
        max_divergence: greatest mean KL (nats) between stored rows and the teacher on this run's pixels, measured where
            they are made otherwise than the store's (default: ten times the store's noise floor and rounding, at
            least 1e-5).
    """

    teacher_source: TeacherSource = "auto"
    store_io: Literal["auto", "mmap", "pread"] = "auto"
    check_rows: bool = True
    max_divergence: float | None = None


@dataclass(frozen=True)
class Optimisation:
    """How the weights move.

    Attributes:
        epochs: passes over the training data.
        batch: global batch, over all ranks.
        micro_batches: equal parts of the batch, dealt whole to ranks (None: one a rank at the first start). Results
            do not depend on the number of ranks for a fixed number of micro-batches.
        max_micro_batch: at the first start, cut the batch into the fewest equal parts that are no larger than this,
            and no fewer than ranks (default: one part a rank). --micro-batches wins over it.
        lr: learning rate at the given batch.
        optimizer: sgd, adam or adamw.
        momentum: of SGD.
        nesterov: Nesterov's form of SGD's momentum.
        betas: of Adam and AdamW.
        weight_decay: decay of all parameters, or as `decay` says.
        decay: all parameters (as the public distillation code does), or only weights (not BN, biases, temperatures).
        schedule: step, cosine or constant.
        milestones: epochs, from 0, at which `step` multiplies the rate by gamma.
        gamma: factor of `step`.
        warmup_epochs: epochs over which the rate rises linearly from zero.
        label_smoothing: of the cross-entropy with the labels.
        ema_decay: decay per step of an averaged copy of the student, evaluated and saved beside it (default: none).
        clip_norm: greatest norm of the whole gradient (default: unlimited).
        max_steps: stop after this many steps in all (default: all epochs). The schedule stays that of all epochs.
        run_seed: seed of the experiment: initialisation, order, dropout.
    """

    epochs: int = 100
    batch: int = 256
    micro_batches: int | None = None
    max_micro_batch: int | None = None
    lr: float = 0.1
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    decay: Literal["all", "weights"] = "all"
    schedule: Literal["step", "cosine", "constant"] = "step"
    milestones: tuple[int, ...] = (30, 60, 90)
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    ema_decay: float | None = None
    clip_norm: float | None = None
    max_steps: int | None = None
    run_seed: int = 0


@dataclass(frozen=True)
class Numerics:
    """In which precision, and how fixed.

    Attributes:
        amp: student's autocast: auto is bf16 on CUDA and off on CPU. Classifiers and losses always run in float32.
        teacher_precision: teacher's body: auto is fp16 on CUDA and fp32 on CPU. Its pooling and classifier run in
            float32.
        channels_last: memory format of networks and images.
        compile: torch.compile student and teacher.
        cuda_graphs: `teacher` launches the online teacher as one CUDA graph: for batches too small to keep the device
            busy while the host launches kernel by kernel.
        sync_bn: batch statistics over all ranks' micro-batches, of student and connectors (ties the result to the
            number of ranks).
        deterministic: only deterministic device kernels, no autotuning; slower.
    """

    amp: Amp = "auto"
    teacher_precision: Precision = "auto"
    channels_last: bool = True
    compile: bool = False
    cuda_graphs: Literal["off", "teacher"] = "off"
    sync_bn: bool = False
    deterministic: bool = False


@dataclass(frozen=True)
class Running:
    """How the job runs; nothing here changes a result, but for the pixels of another backend.

    Attributes:
        backend: torchvision (the reference), dali, ffcv (with --beton), synthetic, or auto: the fastest that fits (on
            CUDA, dali only in a version that has been proven there).
        dali_decoder: what dali decodes with for a CUDA device: cpu never touches it; mixed is nvJPEG on it, and an
            error where its proof on some of the images fails; auto is mixed where the proof succeeds, else cpu. A run
            keeps its decoder.
        dali_hw_decoder_load: share of each batch that dali's mixed decoder gives to the device's JPEG engines, 0 to 1.
            Above 0 an image's place in the batch decides which decoder makes its pixels.
        device: auto takes CUDA where it is.
        threads: decoder threads of each rank (default: this process's cores over the ranks that share them).
        prefetch: requests decoded ahead.
        on_bad_image: stop, or put gray in its place, count it and list it.
        eval_every: epochs between evaluations; the last epoch is always evaluated.
        eval_batch: images per evaluation batch.
        checkpoint_every: steps between checkpoints (default: at the end of every epoch only).
        keep: checkpoints kept, besides the best.
        log_every: steps between lines of metrics.jsonl.
        synthetic_samples: images of the synthetic backend.
        synthetic_classes: classes of the synthetic backend.
        dry_run: print what would run, check everything, train nothing.
    """

    backend: str = "auto"
    dali_decoder: DaliDecoder = "auto"
    dali_hw_decoder_load: float = 0.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    prefetch: int = 3
    on_bad_image: Literal["stop", "gray"] = "stop"
    eval_every: int = 1
    eval_batch: int = 256
    checkpoint_every: int | None = None
    keep: int = 2
    log_every: int = 10
    synthetic_samples: int = 100_000
    synthetic_classes: int = 1000
    dry_run: bool = False


@dataclass(frozen=True)
class Settings:
    """What recipes share and set their own defaults for.

    Attributes:
        views: what the networks see.
        teaching: where the teacher's outputs come from.
        optimisation: how the weights move.
        numerics: precision and determinism.
        running: how the job runs.
    """

    views: Views = field(default_factory=Views)
    teaching: Teaching = field(default_factory=Teaching)
    optimisation: Optimisation = field(default_factory=Optimisation)
    numerics: Numerics = field(default_factory=Numerics)
    running: Running = field(default_factory=Running)


@dataclass(frozen=True)
class RunConfig:
    """Everything that defines a run.

    Attributes:
        recipe: name of the recipe that made it.
        student: model, as NAME[@WEIGHTS].
        teacher: model, as NAME@WEIGHTS; None where the method needs no teacher.
        method: name of the distillation method.
        method_args: its hyper-parameters.
    """

    recipe: str
    student: str
    teacher: str | None
    method: str
    files: Files
    method_args: dict[str, Any] = field(default_factory=dict)
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


# A resumed run may change these: they say where files are, how fast and how often, never what comes out.
FREE_FIELDS = frozenset(
    {
        *(f"files.{name}" for name in ("out", "data", "train_dir", "val_dir", "train_index", "val_index")),
        *(f"files.{name}" for name in ("beton", "val_beton", "store", "stage", "trace")),
        *(f"teaching.{name}" for name in ("store_io", "check_rows", "max_divergence")),
        *(f"running.{name}" for name in ("threads", "prefetch", "checkpoint_every", "keep", "log_every", "dry_run")),
        *(f"running.{name}" for name in ("on_bad_image", "eval_every")),
        "numerics.cuda_graphs",
        "optimisation.max_steps",
        "optimisation.max_micro_batch",  # what it decided, the number of micro-batches, is compared
    }
)

# What each number may be; names are unique over all groups, as flags are.
_RANGES = {
    **dict.fromkeys(("resolution", "val_resolution", "num_views", "std", "teacher_std"), ABOVE_0),
    **dict.fromkeys(("epochs", "batch", "micro_batches", "max_micro_batch", "max_steps", "lr", "clip_norm"), ABOVE_0),
    **dict.fromkeys(("threads", "prefetch", "eval_every", "eval_batch", "checkpoint_every"), ABOVE_0),
    **dict.fromkeys(("keep", "log_every", "synthetic_samples", "synthetic_classes"), ABOVE_0),
    **dict.fromkeys(("max_divergence", "weight_decay", "milestones", "warmup_epochs"), NOT_NEGATIVE),
    **dict.fromkeys(("momentum", "betas", "label_smoothing"), SHARE),
    **dict.fromkeys(("mean", "teacher_mean"), Range(least=0, most=1)),  # of pixels that are 0..1, not 0..255
    **dict.fromkeys(("plan_seed", "run_seed"), SEED),
    "gamma": Range(above=0, most=1),
    "dali_hw_decoder_load": Range(least=0, most=1),
    "ema_decay": Range(above=0, below=1),
}
_TRAINING_NAMES = {
    item.name for group in (Files, Views, Teaching, Optimisation, Numerics, Running) for item in fields(group)
}


def first_difference(saved: RunConfig, now: RunConfig) -> tuple[str, Any, Any] | None:
    """The first field, as `group.field`, that two configurations do not share, with both values."""
    for name, before, after in paired(_complete(saved), _complete(now), ""):
        if before != after and name not in FREE_FIELDS:
            return name, before, after
    return None


def check_config(config: RunConfig) -> None:
    """Refuse values that no run can have, by flag."""
    for path, value in all_numbers(config.to_json(), ""):
        group, _, name = path.rpartition(".")
        of_method = group.startswith(".method_args")
        numbers = ANY if of_method else _RANGES.get(name, ANY)  # a method's ranges are its constructor's
        numbers.check(method_flag(name) if of_method else flag(name), value)
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
            f"the learning rate rises to the end: --warmup-epochs {optimisation.warmup_epochs:g} of --epochs {epochs}."
            " Give fewer epochs of warm-up."
        )
    return warnings


def flag(name: str) -> str:
    """The flag of a field."""
    return f"--{name.replace('_', '-')}"


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
