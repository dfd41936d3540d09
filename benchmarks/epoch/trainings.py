"""The three trainings.

They live side by side in one process and run whole epochs in turn, so that a machine that slows down slows all of them;
ratios are taken within a round.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks._shared.clock import finish
from benchmarks._shared.imagenet import POLICY
from benchmarks._shared.pairs import Pairs, say, seconds_of
from benchmarks._shared.training import one_rank, open_training
from benchmarks.epoch import Epoch
from pipeline.config import Files, Optimisation, Pixels, Reading, RunConfig, Running, Teaching, Views
from pipeline.core.errors import RefluxError
from pipeline.models.spec import resolve_model
from precompute.config import PrecomputeConfig
from precompute.setting import check_names


def check_settings(settings: Epoch) -> None:
    """Refuse names that nobody knows, and packages that are not installed.

    Raises:
        ConfigError: with the nearest known name, or the way to install.
    """
    job = PrecomputeConfig(settings.teacher, pixels=Pixels(POLICY), reading=Reading(settings.backend))
    check_names(job)
    resolve_model(settings.student, role="student")


def measure_epochs(settings: Epoch, work: Path) -> list[Pairs]:
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


def _precompute(settings: Epoch, store: Path) -> None:
    views = ["--views", "0:1", "--policy", POLICY, "--resolution", str(settings.resolution)]
    source = ["--train-dir", str(settings.data), "--backend", settings.backend, "--batch", "64"]
    command = ["-m", "precompute", "--teacher", settings.teacher, "--store", str(store), *source, *views]
    done = subprocess.run([sys.executable, *command], check=False)
    if done.returncode != 0:
        raise RefluxError("the store that is to be compared could not be filled: precompute says why above")


def _configs(settings: Epoch, work: Path) -> dict[str, RunConfig]:
    vanilla = RunConfig(
        recipe="vanilla",
        student=settings.student,
        teacher=None,
        method="supervised",
        files=Files(out=work, train_dir=settings.data, val_dir=settings.data),
        views=Views(resolution=settings.resolution, policy=POLICY, num_views=1),
        optimisation=Optimisation(epochs=1000, batch=settings.batch, lr=0.01, schedule="constant"),
        running=Running(backend=settings.backend),
    )
    online = replace(vanilla, recipe="online", teacher=settings.teacher, method="kd", method_args={"temperature": 4.0})
    files, teaching = replace(vanilla.files, store=work / "store"), Teaching(teacher_source="stored")
    stored = replace(online, recipe="stored", files=files, teaching=teaching)
    return {"vanilla": vanilla, "stored": stored, "online": online}


@contextmanager
def _training(config: RunConfig) -> Iterator[Callable[[], float]]:
    """Yields a function that trains for one epoch and returns its seconds."""
    world = one_rank()
    with open_training(config, world) as training:
        yield lambda: seconds_of(training.step, training.order.steps_per_epoch, wait=partial(finish, world.device))
