"""What a teacher costs: one epoch of the same student from labels, from stored rows, and with the teacher online.

Three trainings live side by side in one process and run whole epochs in turn, so that a machine that slows down slows
all of them; ratios are taken within a round. A second part: how fast stored rows reach a step that does nothing.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.pairs import Pairs
from benchmarks.training import one_rank, open_training
from launch.recipes.losses import KDLoss, distilled, supervised
from pipeline.config import Files, Optimisation, RunConfig, Running, Settings, Teaching, Views
from pipeline.core.errors import RefluxError
from pipeline.data.backends.base import BackendOptions, Source
from pipeline.data.backends.registry import open_backend
from pipeline.data.backends.synthetic import synthetic_index
from pipeline.data.index import Index
from pipeline.data.loader import Loader
from pipeline.data.order import Order
from pipeline.data.plan import PLAN_VERSION, Plan
from pipeline.data.policies.registry import get_policy
from pipeline.models.spec import parse_spec
from pipeline.models.zoo import check_spec
from pipeline.teachers.stored import RowFetcher
from precompute.config import PrecomputeConfig
from precompute.setting import check_names
from stores.codecs.dense_f16 import DenseF16
from stores.index_file import create_store
from stores.layout import shard_keys
from stores.manifest import Manifest
from stores.reader import open_store
from stores.records import PixelRecipe, TeacherRecord
from stores.shard import ShardWriter

_POLICY = "imagenet_train"


@dataclass(frozen=True)
class EpochSettings:
    """What is trained.

    Attributes:
        train_dir: folder of class folders.
        teacher: the teacher that runs online.
        student: the student of all three.
        resolution: side in pixels.
        batch: images a step.
        backend: of the pixels.
        rounds: epochs of each training that are timed.
    """

    train_dir: Path
    teacher: str
    student: str
    resolution: int
    batch: int
    backend: str
    rounds: int


def check_settings(settings: EpochSettings) -> None:
    """Refuse names that nobody knows, and packages that are not installed.

    Raises:
        ConfigError: with the nearest known name, or the way to install.
    """
    job = PrecomputeConfig(teacher=settings.teacher, policy=_POLICY, backend=settings.backend)
    check_names(job)
    check_spec(parse_spec(settings.student), role="student")


def measure_epochs(settings: EpochSettings, work: Path, say: Callable[[str], None]) -> list[Pairs]:
    """Seconds of an epoch with a stored and with an online teacher, each against plain training in the same round.

    `work` takes the store that is made for it, view 0 of all images.

    Raises:
        RefluxError: precompute, in a process of its own, refused the images or the teacher.
    """
    _precompute(settings, work / "store")
    with ExitStack() as stack:
        run = {name: stack.enter_context(_training(config)) for name, config in _configs(settings, work).items()}
        for name in run:  # buffers, thread pools, page cache
            run[name]()
        seconds: dict[str, list[float]] = {name: [] for name in run}
        for round_ in range(settings.rounds):
            names = list(run)
            for name in names[round_ % 3 :] + names[: round_ % 3]:
                seconds[name].append(run[name]())
            say(f"round {round_ + 1}: " + ", ".join(f"{name} {seconds[name][-1]:.2f} s" for name in names))
    return [
        Pairs(f"{name} / vanilla", "s an epoch", tuple(seconds[name]), tuple(seconds["vanilla"]))
        for name in ("stored", "online")
    ]


def _precompute(settings: EpochSettings, store: Path) -> None:
    views = ["--views", "0:1", "--policy", _POLICY, "--resolution", str(settings.resolution)]
    source = ["--train-dir", str(settings.train_dir), "--backend", settings.backend, "--batch", "64"]
    command = ["-m", "precompute", "--teacher", settings.teacher, "--store", str(store), *source, *views]
    done = subprocess.run([sys.executable, *command], check=False)
    if done.returncode != 0:
        raise RefluxError("the store that is to be compared could not be filled: precompute says why above")


def _configs(settings: EpochSettings, work: Path) -> dict[str, RunConfig]:
    files = Files(out=work, train_dir=settings.train_dir, val_dir=settings.train_dir)
    common = Settings(
        views=Views(resolution=settings.resolution, policy=_POLICY, num_views=1),
        optimisation=Optimisation(epochs=1000, batch=settings.batch, lr=0.01, schedule="constant"),
        running=Running(backend=settings.backend),
    )
    stored = replace(common, teaching=Teaching(teacher_source="stored"))
    teaching = (settings.student, settings.teacher, KDLoss(temperature=4.0))
    return {
        "vanilla": supervised("vanilla", files, settings.student, 1.0, common),
        "stored": distilled("stored", replace(files, store=work / "store"), *teaching, stored),
        "online": distilled("online", files, *teaching, common),
    }


@contextmanager
def _training(config: RunConfig) -> Iterator[Callable[[], float]]:
    """Yields a function that trains for one epoch and returns its seconds."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    with open_training(config, one_rank(device)) as training:

        def epoch() -> float:
            started = time.perf_counter()
            for _ in range(training.order.steps_per_epoch):
                training.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - started

        yield epoch


@dataclass(frozen=True)
class Delivery:
    """Rows per second that reach a step without a model, cold (page cache dropped, where permitted) and warm."""

    warm: float
    cold: float | None

    def to_json(self) -> dict[str, float]:
        """Figures by name; without "cold" where it could not be measured."""
        return {"warm": self.warm, **({} if self.cold is None else {"cold": self.cold})}


def measure_delivery(work: Path, *, num_rows: int, num_classes: int, batch: int, seconds: float) -> Delivery:
    """Random rows of a dense store through fetcher and loader, beside synthetic pixels of 8 x 8."""
    index = synthetic_index(num_rows, num_classes)
    store = work / "delivery"
    _write_store(store, index)
    cold = _deliver(index, store, batch, seconds) if _drop_page_cache(store) else None
    warm = max(_deliver(index, store, batch, seconds) for _ in range(2))
    return Delivery(warm, cold)


def _deliver(index: Index, store: Path, batch: int, seconds: float) -> float:
    reader = open_store(store)
    fetch = RowFetcher(reader, fields=("logits",), views=frozenset({0}), pinned=False)
    backend = open_backend("synthetic", Source(index), BackendOptions(8, 1, batch))
    loader = Loader(index, Plan(get_policy(_POLICY), 0), backend, torch.device("cpu"), num_views=1, fetch=fetch)
    order = Order(index.ids, run_seed=0, micro_batch=batch, num_micro_batches=1)
    with closing(loader), closing(loader.training(order, rank=0, world_size=1, start_step=0, stop_step=10**9)) as rows:
        next(rows)
        started, done = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < seconds:
            done += len(next(rows).stored["logits"])
    return done / elapsed


def _write_store(store: Path, index: Index) -> None:
    codec = DenseF16(width=len(index.classes))
    manifest = Manifest(
        index_fingerprint=index.fingerprint,
        num_rows=len(index),
        classes=index.classes,
        policy=get_policy(_POLICY).to_json(),
        plan_seed=0,
        plan_version=PLAN_VERSION,
        pixel_recipe=PixelRecipe(backend="synthetic"),
        teacher=TeacherRecord.from_json({"name": "noise"}),
        codecs=(codec.to_json(),),
        shard_rows=65536,
    )
    create_store(store, manifest, None)
    plan = Plan(get_policy(_POLICY), 0)
    noise = np.random.default_rng(0).normal(size=(4096, codec.width)).astype(np.float32)
    for key in shard_keys(0, len(index), manifest.shard_rows):
        with ShardWriter(store, key, manifest, codec.fields, made_with={}) as writer:
            for start in range(key.start, key.stop, len(noise)):
                part = slice(start, min(start + len(noise), key.stop))
                _write_rows(writer, key.start, part, codec, noise, plan, index)
            writer.seal()


def _write_rows(
    writer: ShardWriter, first: int, part: slice, codec: DenseF16, noise: np.ndarray, plan: Plan, index: Index
) -> None:
    ids = index.ids[part]
    rows = plan.rows(ids, np.zeros_like(ids), index.widths[part], index.heights[part])
    columns = {"label": index.labels[part].astype(np.int32), "plan_crc": rows.crc(), **codec.encode(noise[: len(ids)])}
    writer.write(part.start - first, columns)


def _drop_page_cache(store: Path) -> bool:
    """Ask the kernel to forget the store's pages; false where that is not permitted."""
    for path in store.rglob("*.h5"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            return False
        finally:
            os.close(descriptor)
    return True
