"""Precompute jobs as real processes, and what they leave behind."""

import json
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
from jobs import ForkedJob, run_to_end

from pipeline.data.backends import torchvision
from pipeline.data.backends.torchvision import TorchvisionBackend
from pipeline.data.decode import decode_rgb
from precompute.__main__ import main

SMALL_FILE_BYTES = 40_000
OLDER_RECIPE = {"backend": "torchvision", "decode": "full", "resize": "bilinear, antialias, uint8", "copy": None}
_NOBODY = 65534
TEACHER = """
from torch import nn

WIDTH = 8


def teacher(*, num_classes):
    return nn.Sequential(
        nn.Conv2d(3, WIDTH, 3, stride=2), nn.BatchNorm2d(WIDTH), nn.SiLU(),
        nn.Conv2d(WIDTH, 16, 3, stride=2), nn.SiLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, num_classes),
    )
"""


def write_teacher(folder: Path, *, width: int = 8) -> str:
    """Write a small convolutional teacher; returns its name for `--teacher`. A wide one takes its time."""
    path = folder / "own.py"
    path.write_text(TEACHER.replace("WIDTH = 8", f"WIDTH = {width}"))
    return f"{path}:teacher@random"


def synthetic_flags(teacher: str, samples: int, *, resolution: int = 32) -> list[str]:
    """A job on images that exist nowhere."""
    data = ["--backend", "synthetic", "--synthetic-samples", str(samples), "--synthetic-classes", "10"]
    return ["--teacher", teacher, *data, "--resolution", str(resolution), "--threads", "1", "--device", "cpu"]


def photo_flags(teacher: str, train: Path, val: Path | None = None) -> list[str]:
    """A job on folders of photos."""
    folders = ["--train-dir", str(train), *(["--val-dir", str(val)] if val is not None else [])]
    flags = ["--backend", "torchvision", "--resolution", "32", "--threads", "1", "--device", "cpu"]
    return ["--teacher", teacher, *folders, *flags, "--batch", "16", "--shard-rows", "32"]


def start(
    flags: Sequence[str], store: Path, *, size: int = 1, log: Path | None = None, entry: Callable[[], object] = main
) -> ForkedJob:
    """Start a job."""
    arguments = [*flags, "--store", str(store)]
    return ForkedJob(arguments, log=log or store.parent / f"{store.name}.log", size=size, entry=entry)


def fill(
    flags: Sequence[str], store: Path, *, size: int = 1, expected: int = 0, entry: Callable[[], object] = main
) -> str:
    """Run a job to its end; returns what it, and those before it, printed."""
    return run_to_end(start(flags, store, size=size, entry=entry), expected=expected)


def shards_of(store: Path) -> list[Path]:
    """Every sealed shard, relative to the store."""
    return sorted(path.relative_to(store) for path in (store / "views").glob("*/rows-*.h5"))


def contents(store: Path) -> dict[str, bytes]:
    """The bytes of every dataset of every shard, by shard and name."""
    found = {}
    for shard in shards_of(store):
        with h5py.File(store / shard) as file:
            for name in file:
                found[f"{shard}/{name}"] = file[name][...].tobytes()
    return found


def made_with(shard: Path) -> dict[str, Any]:
    """What a shard says of the job that made it."""
    with h5py.File(shard) as file:
        found: dict[str, Any] = json.loads(file.attrs["header"])["made_with"]
    return found


def check_equal(store: Path, expected: Path) -> None:
    """The two stores hold the same shards, datasets and bytes."""
    ours, theirs = contents(store), contents(expected)
    assert list(ours) == list(theirs)
    assert [name for name, value in ours.items() if value != theirs[name]] == []


def leftovers(store: Path) -> list[Path]:
    """Temporary files."""
    return list(store.rglob(".*.tmp"))


def main_with_a_full_disk() -> None:
    """The program in a process that may write small files only: for a shard, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILE_BYTES, resource.RLIM_INFINITY))
    main()


def main_without_rights() -> None:
    """The program as a user who owns nothing here."""
    os.setuid(_NOBODY)
    main()


def main_of_an_older_reflux() -> None:
    """The program as it was before recipes named the decoder; on JPEGs both give the same bits."""
    TorchvisionBackend.pixel_recipe = lambda self: dict(OLDER_RECIPE)  # type: ignore[method-assign]
    main()


def main_with_another_decoder() -> None:
    """The program as it would be had another decoder made other pixels."""
    torchvision.decode_rgb = lambda data: 255 - decode_rgb(data)
    main_of_an_older_reflux()
