"""Measure what this project claims. Each figure comes from pairs measured in turn; tables for people, JSON for records.

python -m benchmarks loader --data DIR [--json FILE]

python -m benchmarks precompute --data DIR [--json FILE]

python -m benchmarks store [--json FILE]

python -m benchmarks codecs --data DIR --teacher NAME@WEIGHTS [--json FILE] [--png FILE]

python -m benchmarks kernels [--json FILE]

python -m benchmarks epoch --data DIR [--json FILE]

python -m benchmarks step [--methods kd dkd ...] [--json FILE]

python -m benchmarks gpu [--quick] [--data DIR] [--json FILE]
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from benchmarks.checks import check_folder, check_names, check_new_file, check_positive, class_folders
from benchmarks.gpu.command import gpu
from benchmarks.show import encoded, save_report, sayer, show_figures, show_pairs
from pipeline.core.command import progress, run_command


def loader(
    data: Path,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    backends: tuple[str, ...] = (),
    resolution: int = 224,
    batch: int = 64,
    threads: int | None = None,
    batches: int = 30,
    repeats: int = 5,
    max_side: int = 500,
    work: Path | None = None,
) -> None:
    """Each backend on replayed views against its library's own random pipeline; and what ImageNet's metadata cost.

    Args:
        data: Folder with a folder of images per class, or with train/ and val/, of which train/ is taken.
        json_file: File for all figures, with machine and versions.
        backends: Of dali, ffcv-raw, ffcv-jpeg, torchvision (default: all that are installed).
        resolution: Output side in pixels.
        batch: Images per batch.
        threads: Decoder threads, or worker processes of the DataLoader (default: all cores).
        batches: Batches in a timed window.
        repeats: Pairs of windows.
        max_side: Longer side of the images in FFCV's copies.
        work: Folder that keeps FFCV's copies for the next time (default: a temporary one).
    """
    from benchmarks.loader import LoaderSettings, installed_loaders, measure_loaders, measure_metadata
    from benchmarks.machine import describe_machine

    check_new_file("--json", json_file)
    check_names("backend to measure", backends, ("dali", "ffcv-raw", "ffcv-jpeg", "torchvision"))
    check_positive({"--resolution": resolution, "--batch": batch, "--threads": threads, "--batches": batches})
    check_positive({"--repeats": repeats, "--max-side": max_side})
    check_folder("--work", work)
    say = sayer()
    data = class_folders(data, say)
    settings = LoaderSettings(data, resolution, batch, threads, batches, repeats, max_side)
    with tempfile.TemporaryDirectory() as temporary:
        results = measure_loaders(settings, list(backends) or installed_loaders(), work or Path(temporary), say)
    metadata = measure_metadata()
    show_pairs("replayed against native, images/s, medians", ("replayed", "native"), results)
    show_figures("metadata of 1,281,167 samples", metadata)
    report = {"settings": encoded(settings), "pairs": [pairs.to_json() for pairs in results], "metadata": metadata}
    save_report(json_file, report, describe_machine)


def precompute(
    data: Path,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    backends: tuple[str, ...] = (),
    views: int = 8,
    resolution: int = 224,
    batch: int = 256,
    threads: int | None = None,
    images: int = 256,
    repeats: int = 5,
    work: Path | None = None,
) -> None:
    """Several views of each image from one decode, against as many passes; and filling a store against loading alone.

    Args:
        data: Folder with a folder of images per class, or with train/ and val/, of which train/ is taken.
        json_file: File for all figures, with machine and versions.
        backends: Of ffcv-jpeg, torchvision (default: all that are installed).
        views: Views from one decode.
        resolution: Output side in pixels.
        batch: Rows of a request.
        threads: Decoder threads (default: all cores).
        images: Images of each pair, each read once against once a view.
        repeats: Pairs.
        work: Folder that keeps FFCV's copy of the originals for the next time (default: a temporary one).
    """
    from benchmarks.fill import FillSettings, against_loader
    from benchmarks.loader import installed_loaders
    from benchmarks.machine import describe_machine
    from benchmarks.precompute import DecodeSettings, views_per_decode

    check_new_file("--json", json_file)
    known = ("ffcv-jpeg", "torchvision")
    check_names("backend to measure", backends, known)
    check_positive({"--views": views, "--resolution": resolution, "--batch": batch, "--threads": threads})
    check_positive({"--images": images, "--repeats": repeats})
    check_folder("--work", work)
    say = sayer()
    data = class_folders(data, say)
    chosen = list(backends) or [name for name in known if name in installed_loaders()]
    settings = DecodeSettings(data, views, resolution, batch, threads, images, repeats)
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        results = views_per_decode(settings, chosen, folder, say)
        fill = FillSettings(data, resolution, threads=threads, repeats=repeats)
        filled = against_loader(fill, chosen, folder, say)
    title = f"{views} views from one decode against {views} passes, views/s, medians"
    show_pairs(title, ("one decode", "passes"), results)
    title = "precompute with a teacher that costs nothing against its loader alone, images/s, medians"
    show_pairs(title, ("precompute", "loader"), filled)
    report = {
        "settings": encoded(settings),
        "pairs": [pairs.to_json() for pairs in results],
        "against_loader": [pairs.to_json() for pairs in filled],
    }
    save_report(json_file, report, describe_machine)


def codecs(
    data: Path,
    teacher: str,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    png: Path | None = None,
    rows: int = 2000,
    resolution: int = 224,
    policy: str = "imagenet_train",
    threads: int | None = None,
) -> None:
    """Rate and distortion of every codec on what a teacher gives for real views.

    Args:
        data: Folder with a folder of images per class, or with train/ and val/, of which train/ is taken.
        teacher: NAME@WEIGHTS.
        json_file: File for all figures, with machine and versions.
        png: File for a picture of the table.
        rows: Views that the teacher looks at.
        resolution: Side of the teacher's pixels.
        policy: Augmentation of the views.
        threads: Decoder threads (default: all cores).
    """
    from benchmarks.codecs import CodecSettings, measure_codecs, teacher_rows, to_json
    from benchmarks.codecs_report import codecs_table, draw_codecs, title_of
    from benchmarks.machine import describe_machine
    from pipeline.data.policy import get_policy
    from pipeline.models.spec import parse_spec
    from pipeline.models.zoo import check_spec

    check_new_file("--json", json_file)
    check_new_file("--png", png)
    check_positive({"--rows": rows, "--resolution": resolution, "--threads": threads})
    check_spec(parse_spec(teacher), role="teacher")
    get_policy(policy)
    data = class_folders(data, sayer())
    settings = CodecSettings(data, teacher, rows, resolution, policy, threads)
    with progress("teacher", "rows") as on_progress:
        outputs = teacher_rows(settings, on_progress)
    lines = measure_codecs(outputs)
    Console().print(codecs_table(title_of(settings, outputs), lines))
    if png is not None:
        draw_codecs(png, title_of(settings, outputs), lines)
        Console().print(f"picture: {png}")
    save_report(json_file, to_json(settings, outputs, lines), describe_machine)


def store(
    work: Path | None = None,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    rows: int = 196_608,
    shard_rows: int = 65_536,
    batch: int = 256,
    repeats: int = 5,
    views: int = 50,
) -> None:
    """Reader and writer against h5py, compressed HDF5, np.memmap and plain writes; and what opening a store costs.

    Args:
        work: Folder on the disk to measure; a temporary folder is made in it (default: the system's).
        json_file: File for all figures, with machine and versions.
        rows: Rows of 1000 float16 logits that are read.
        shard_rows: Rows of a shard.
        batch: Rows of a gather and of a write.
        repeats: Pairs of windows.
        views: Views of 1,281,167 rows of the store that is opened (sparse files).
    """
    from benchmarks.loader import IMAGENET_SAMPLES
    from benchmarks.machine import describe_machine
    from benchmarks.store import StoreSettings, measure_store
    from benchmarks.store_memory import measure_open

    check_new_file("--json", json_file)
    check_folder("--work", work)
    check_positive({"--shard-rows": shard_rows, "--batch": batch, "--repeats": repeats, "--views": views})
    check_positive({"--rows": rows}, least=batch)
    settings = StoreSettings(rows=rows, shard_rows=shard_rows, batch=batch, repeats=repeats)
    with tempfile.TemporaryDirectory(dir=work) as temporary:
        figures = measure_store(settings, Path(temporary), sayer())
        opened = measure_open(Path(temporary), views=views, rows=IMAGENET_SAMPLES)
    show_pairs("random rows, warm, rows/s, medians", ("store", "other"), figures.warm)
    if figures.cold:
        show_pairs("one pass in random order, cold, rows/s, medians", ("store", "other"), figures.cold)
    show_pairs("writing until durable, rows/s, medians", ("store", "other"), figures.write)
    show_figures(f"opening {views} views of {IMAGENET_SAMPLES:,} rows", opened)
    pairs = {kind: [pairs.to_json() for pairs in getattr(figures, kind)] for kind in ("warm", "cold", "write")}
    report = {"settings": encoded(settings), **pairs, "disk_bytes": figures.disk_bytes, "open": opened}
    save_report(json_file, report, describe_machine)


def kernels(
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    batches: tuple[int, ...] = (64, 256, 1024),
    classes: tuple[int, ...] = (100, 1000, 21841),
    losses: tuple[str, ...] = ("kl", "dkd", "zscore_kl", "topk_kl"),
    rivals: tuple[str, ...] = ("loop", "eager", "compiled", "liger", "scalar"),
    repeats: int = 5,
    device: Literal["cpu", "cuda"] = "cpu",
    half: bool = False,
) -> None:
    """Fused losses against the per-sample loop, batched autograd, torch.compile and Liger-Kernel; time and memory.

    Args:
        json_file: File for all figures, with machine and versions.
        batches: Values of B.
        classes: Values of C.
        losses: Of kl (a temperature for each sample), dkd, zscore_kl, topk_kl.
        rivals: Of loop (the seed's), eager, compiled, liger, scalar (the fused form with one temperature).
        repeats: Pairs of windows.
        device: cpu or cuda.
        half: bfloat16 logits in the place of float32.
    """
    from benchmarks.kernels import KernelSettings, check_device, measure_kernels
    from benchmarks.machine import describe_machine

    check_new_file("--json", json_file)
    check_names("loss to measure", losses, ("kl", "dkd", "zscore_kl", "topk_kl"))
    check_names("rival to measure", rivals, ("loop", "eager", "compiled", "liger", "scalar"))
    check_positive({"--batches": batches, "--repeats": repeats})
    check_positive({"--classes": classes}, least=2)
    check_device(device)
    settings = KernelSettings(batches, classes, losses, rivals, repeats, device=device, half=half)
    figures = measure_kernels(settings, sayer())
    show_pairs("forward and backward, steps/s, medians", ("fused", "rival"), figures.pairs)
    show_figures(
        "peak memory of a step, in float32 buffers of B x C", {peak.name: peak.buffers for peak in figures.memory}
    )
    for name, found in figures.cuda.items():
        show_figures(name, found)
    report = {
        "settings": encoded(settings),
        "pairs": [pairs.to_json() for pairs in figures.pairs],
        "memory": [peak.to_json() for peak in figures.memory],
        "cuda": figures.cuda,
    }
    save_report(json_file, report, describe_machine)


def epoch(
    data: Path,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    teacher: str = "resnet18@random",
    student: str = "demo_student",
    resolution: int = 64,
    batch: int = 32,
    backend: str = "torchvision",
    rounds: int = 7,
    rows: int = 262_144,
    seconds: float = 5.0,
) -> None:
    """One epoch from labels, from stored teacher outputs and with the teacher online; and how fast stored rows arrive.

    Args:
        data: Folder with a folder of images per class, or with train/ and val/, of which train/ is taken.
        json_file: File for all figures, with machine and versions.
        teacher: NAME@WEIGHTS, at the student's resolution.
        student: NAME.
        resolution: Side of the pixels.
        batch: Images of a step.
        backend: Of the pixels.
        rounds: Timed epochs of each of the three trainings.
        rows: Rows of the store from which rows alone are delivered.
        seconds: Length of each such measurement.
    """
    from benchmarks.epoch import EpochSettings, check_settings, measure_delivery, measure_epochs
    from benchmarks.machine import describe_machine

    check_new_file("--json", json_file)
    check_positive({"--resolution": resolution, "--batch": batch, "--rounds": rounds, "--seconds": seconds})
    check_positive({"--rows": rows}, least=1000)
    data = class_folders(data, sayer())
    settings = EpochSettings(data, teacher, student, resolution, batch, backend, rounds)
    check_settings(settings)
    with tempfile.TemporaryDirectory() as temporary:
        results = measure_epochs(settings, Path(temporary), sayer())
        delivery = measure_delivery(Path(temporary), num_rows=rows, num_classes=1000, batch=256, seconds=seconds)
    show_pairs("seconds of an epoch against training from labels", ("distilled", "labels"), results)
    show_figures("stored rows to a step without a model, rows/s", delivery.to_json())
    pairs = [pairs.to_json() for pairs in results]
    save_report(
        json_file, {"settings": encoded(settings), "pairs": pairs, "delivery": delivery.to_json()}, describe_machine
    )


def step(
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    methods: tuple[str, ...] = (),
    student: str = "resnet18",
    teacher: str = "resnet34",
    resolution: int = 224,
    batch: int = 64,
    amp: Literal["off", "bf16", "fp16"] = "off",
    steps: int = 1,
    repeats: int = 3,
) -> None:
    """One training step of each method, with the teacher's outputs given, against the step of supervised training.

    Args:
        json_file: File for all figures, with machine and versions.
        methods: Names of methods, ctkd_instance among them (default: those that stored logits serve).
        student: NAME.
        teacher: NAME; its weights are random, its outputs are made before.
        resolution: Side of the images.
        batch: Images of a step.
        amp: Precision of the student's body.
        steps: Steps of a timed window.
        repeats: Pairs of windows.
    """
    from benchmarks.machine import describe_machine
    from benchmarks.step import FROM_LOGITS, StepSettings, check_settings, measure_steps

    check_new_file("--json", json_file)
    check_positive({"--resolution": resolution, "--batch": batch, "--steps": steps, "--repeats": repeats})
    settings = StepSettings(methods or FROM_LOGITS, student, teacher, resolution, batch, amp, steps, repeats)
    check_settings(settings)
    figures = measure_steps(settings, sayer())
    show_pairs("steps/s with the method and with labels alone", ("method", "labels"), [one.pairs for one in figures])
    show_figures(
        "the loss and its gradient, per cent of the step", {one.pairs.name: 100 * one.share for one in figures}
    )
    report = {"settings": encoded(settings), "methods": [one.to_json() for one in figures]}
    save_report(json_file, report, describe_machine)


def main() -> None:
    """One subcommand per benchmark."""
    parts: dict[str, Callable[..., None]] = {
        "loader": loader,
        "precompute": precompute,
        "codecs": codecs,
        "store": store,
        "kernels": kernels,
        "epoch": epoch,
        "step": step,
        "gpu": gpu,
    }
    tyro.extras.subcommand_cli_from_dict(parts, prog="python -m benchmarks", description=__doc__)


if __name__ == "__main__":
    run_command(main)
