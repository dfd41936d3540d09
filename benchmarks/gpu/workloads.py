"""The trainings that are measured, ResNet-34 to ResNet-18 at 224 px with synthetic pixels, and the store of one."""

import itertools
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import torch

from benchmarks._shared.imagenet import CLASSES, POLICY, SAMPLES
from benchmarks._shared.training import Training, one_rank, open_training
from benchmarks.gpu.findings import Setting
from pipeline.config import Files, Numerics, Optimisation, Pixels, RunConfig, Running, Teaching, Views
from precompute.config import PrecomputeConfig
from precompute.fill import precompute

Graphs = Literal["off", "teacher"]
WARM_UPS = 4  # libraries choose their algorithms, pools grow, kernels are compiled
_TOY_ARGUMENTS = {"crd": {"feature_dim": 8, "num_negatives": 16}, "reviewkd": {"mid_channels": 16}}


@dataclass(frozen=True)
class Workload:
    """One training.

    Attributes:
        method: name of the method.
        stored: the teacher's outputs come from a store.
    """

    method: str
    stored: bool = False

    @property
    def online(self) -> bool:
        """Whether a teacher runs in the step."""
        return self.method != "supervised" and not self.stored


WORKLOADS = {
    "vanilla": Workload("supervised"),
    "KD online": Workload("kd"),
    "KD stored": Workload("kd", stored=True),
    "ReviewKD": Workload("reviewkd"),
    "CRD": Workload("crd"),
}


def config_of(
    name: str, setting: Setting, *, batch: int, graphs: Graphs = "off", deterministic: bool = False
) -> RunConfig:
    """The run of a workload, with the precisions that CUDA's defaults are."""
    work, (student, teacher) = WORKLOADS[name], setting.models
    return RunConfig(
        recipe="gpu",
        student=student,
        teacher=None if work.method == "supervised" else teacher,
        method=work.method,
        method_args=_TOY_ARGUMENTS.get(work.method, {}) if setting.size == "toy" else {},
        files=Files(out=setting.work / "run", store=setting.work / "store" if work.stored else None),
        views=Views(resolution=setting.side, policy=POLICY, num_views=1),
        teaching=Teaching(teacher_source="stored" if work.stored else "auto"),
        optimisation=Optimisation(epochs=10_000, batch=batch, lr=1e-4, schedule="constant"),
        numerics=Numerics(cuda_graphs=graphs, deterministic=deterministic),
        running=_running(name, setting),
    )


def open_workload(config: RunConfig, setting: Setting) -> AbstractContextManager[Training]:
    """Its training on the setting's device, with its store filled before; closed with the block."""
    if config.files.store is not None:
        fill_store(setting)
    return open_training(config, one_rank(torch.device(setting.device)))


def fill_store(setting: Setting) -> Path:
    """The store of the stored workload: the teacher's logits for one view, by the real precompute, once.

    It runs in a process of its own, since it sets the whole process to deterministic kernels.
    """
    store, filled = setting.work / "store", setting.work / "store-is-filled"
    if filled.exists():
        return store
    job = PrecomputeConfig(
        teacher=setting.models[1],
        store=store,
        pixels=Pixels(POLICY, resolution=setting.side),
        reading=_running("KD stored", setting),
        batch=setting.pick(256, 256, 16),
        device="cuda" if setting.on_cuda else "cpu",
    )
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(precompute, job).result()
    filled.touch()
    return store


def held_step(training: Training) -> Callable[[], object]:
    """The step without its loader, on two batches that stay on the device; warm."""
    batches = itertools.cycle([training.next(), training.next()])

    def step() -> object:
        return training.train_step(next(batches))

    for _ in range(WARM_UPS):
        step()
    return step


def _running(name: str, setting: Setting) -> Running:
    """CRD's banks have ImageNet's size; of the store there are two batches of 1,024."""
    samples = {"CRD": setting.pick(SAMPLES, 100_000, 64), "KD stored": setting.pick(2048, 2048, 64)}
    return Running(
        backend="synthetic",
        device="cuda" if setting.on_cuda else "cpu",
        synthetic_samples=samples.get(name, setting.pick(100_000, 10_000, 64)),
        synthetic_classes=setting.pick(CLASSES, CLASSES, 10),
    )
