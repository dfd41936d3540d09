"""Prepare a data set: index a folder of images, write an FFCV file, or draw the demo images.

python launch/prepare.py index --data DIR
python launch/prepare.py ffcv  --data DIR --out FILE.beton
python launch/prepare.py demo  --out DIR
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape

from pipeline.core.command import format_bytes, print_table, progress, run_command
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.ranges import ABOVE_0
from pipeline.data.demo_images import DemoSpec, write_demo
from pipeline.data.index import Index, check_same_classes, load_index
from pipeline.data.scan import BadFile, OnBadFile, Verify, scan_folder

Split = Literal["train", "val"]
_SHOWN = 20
# of 200 ImageNet images at most 500 pixels wide or high, PIL's encoder
_JPEG_BYTES_PER_PIXEL = {1: 0.03, 30: 0.096, 50: 0.132, 75: 0.199, 85: 0.271, 90: 0.326, 95: 0.481, 100: 0.88}
_Folder = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
_File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
_Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]


@dataclass(frozen=True)
class _Scanned:
    index: Index
    refused: list[BadFile]
    seconds: float


def index(
    data: _Folder = None,
    train_dir: _Folder = None,
    val_dir: _Folder = None,
    out: _Folder = None,
    bad: OnBadFile = "refuse",
    verify: Verify = "ends",
    force: _Switch = False,
) -> None:
    """Write train.index.h5 and val.index.h5: path, label and size of every image, and the data set's fingerprint.

    Args:
        data: Folder that holds train/ and val/, each with a folder per class.
        train_dir: Training images, where they are not in DATA/train.
        val_dir: Validation images, where they are not in DATA/val.
        out: Folder for the index files (default: DATA).
        bad: Stop at files that cannot serve as training images and list them, or leave them out.
        verify: Read headers, the last bytes of each file and a PNG's checksums, or decode every image (slow, finds all
            damage).
        force: Overwrite an index that differs.
    """
    folders = split_folders(data, train_dir, val_dir)
    target = out if out is not None else data
    if target is None:
        raise ConfigError("without --data there is no folder for the index files: name it with --out DIR")
    check_writable(target)
    scanned = {split: _scan(split, folder, bad, verify) for split, folder in folders.items()}
    if len(scanned) == 2:
        check_same_classes(scanned["train"].index, scanned["val"].index)
    paths = {split: target / f"{split}.index.h5" for split in scanned}
    new = [split for split in scanned if _is_new(paths[split], scanned[split].index, force=force)]
    for split in new:
        scanned[split].index.save(paths[split])
    _show_index(scanned, paths, new)


def ffcv(
    out: Path,
    data: _Folder = None,
    folder: _Folder = None,
    index: _File = None,
    split: Split = "train",
    encoding: Literal["raw", "jpeg"] = "jpeg",
    max_side: int = 500,
    quality: int = 90,
    num_workers: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None,
    dry_run: _Switch = False,
    force: _Switch = False,
) -> None:
    """Write a .beton file for the ffcv backend: resized copies of all images, sample ids and the index fingerprint.

    Args:
        out: The .beton file to write.
        data: Folder that holds train/ and val/; DATA/SPLIT.index.h5 is used where it exists.
        folder: Folder of class folders, instead of --data.
        index: Index file made by `prepare.py index`, instead of --data.
        split: Which half of DATA.
        encoding: Uncompressed pixels (fastest, largest) or JPEG.
        max_side: Longer sides are reduced to this many pixels.
        quality: JPEG quality of the images that are reduced.
        num_workers: Threads that read and encode (default: one a core).
        dry_run: Only say how large the file would be.
        force: Overwrite OUT.
    """
    from pipeline.data.beton import CopyRecipe  # torch takes seconds, and `--help` must not
    from pipeline.data.beton_writer import write_beton

    CopyRecipe(encoding, max_side, quality)  # refused before images are read
    if num_workers is not None:
        ABOVE_0.check("--num-workers", num_workers)
    if out.exists() and not (force or dry_run):
        raise ConfigError(f"{out} exists; name another --out, or overwrite it with --force")
    source = _one_index(data, folder, index, split)
    console, name = Console(soft_wrap=True), escape(str(out))
    estimate = estimate_beton_bytes(source, encoding=encoding, max_side=max_side, quality=quality)
    if dry_run:
        console.print(f"{name} would hold {len(source):,} images in about {format_bytes(estimate, 1)}")
        return
    check_writable(out.parent)
    console.print(f"writing {len(source):,} images, about {format_bytes(estimate, 1)}, to {name}")
    started = time.monotonic()
    with progress("ffcv", "images") as on_progress:
        write_beton(
            source,
            out,
            encoding=encoding,
            max_side=max_side,
            quality=quality,
            num_workers=num_workers,
            overwrite=force,
            on_progress=on_progress,
        )
    console.print(f"{len(source):,} images, {format_bytes(out.stat().st_size, 1)}, {time.monotonic() - started:.1f} s")


def demo(out: Path, train_per_class: int = 300, val_per_class: int = 50, seed: int = 0) -> None:
    """Draw a small JPEG data set (10 classes of textures and shapes) into OUT/train and OUT/val.

    Args:
        out: Folder to make.
        train_per_class: Training images per class.
        val_per_class: Validation images per class.
        seed: Another seed, other images.
    """
    spec = DemoSpec(train_per_class=train_per_class, val_per_class=val_per_class, seed=seed)
    started = time.monotonic()
    with progress("demo", "images") as on_progress:
        is_new = write_demo(out, spec, on_progress)
    what = f"drawn in {time.monotonic() - started:.1f} s" if is_new else "there already, unchanged"
    Console(soft_wrap=True).print(f"demo images in {escape(str(out))}: {what}")


def split_folders(data: Path | None, train_dir: Path | None, val_dir: Path | None) -> dict[str, Path]:
    """The folders of the splits that the flags name; each must exist.

    Raises:
        ConfigError: no flag given.
        DataError: a folder is missing.
    """
    named = {"train": train_dir, "val": val_dir}
    folders = {split: folder or (data and data / split) for split, folder in named.items()}
    found = {split: folder for split, folder in folders.items() if folder is not None}
    if not found:
        raise ConfigError("no data named: give --data DIR (it holds train/ and val/), or --train-dir and --val-dir")
    for split, folder in found.items():
        if not folder.is_dir():
            raise DataError(
                f"no such folder: {folder} ({split} images).\n"
                f"--data DIR must hold train/ and val/; folders elsewhere are named with --{split}-dir."
            )
    return found


def check_writable(folder: Path) -> None:
    """Make `folder` where it is missing, and refuse it where no file can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"cannot write into {folder}: {error.strerror}.\nName a folder that can be written with --out."
        ) from error


def estimate_beton_bytes(index: Index, *, encoding: Literal["raw", "jpeg"], max_side: int, quality: int) -> int:
    """About how large a .beton of `index` becomes, from sizes alone: within some 10 % for raw, 30 % for JPEG."""
    widths, heights = index.widths.astype(np.float64), index.heights.astype(np.float64)
    scale = np.minimum(1.0, max_side / np.maximum(widths, heights))
    pixels = widths * heights * scale**2
    if encoding == "raw":
        return int(3 * pixels.sum())
    bytes_per_pixel = np.interp(quality, list(_JPEG_BYTES_PER_PIXEL), list(_JPEG_BYTES_PER_PIXEL.values()))
    smaller = bytes_per_pixel * pixels * scale**-0.7  # fewer pixels, each with more detail
    return int(np.where(scale < 1, smaller, index.sizes).sum())  # what is small enough stays as it is


def _scan(split: str, folder: Path, bad: OnBadFile = "refuse", verify: Verify = "ends") -> _Scanned:
    started = time.monotonic()
    with progress(split, "files") as on_progress:
        index, refused = scan_folder(folder, bad=bad, verify=verify, on_progress=on_progress)
    return _Scanned(index, refused, time.monotonic() - started)


def _is_new(path: Path, index: Index, *, force: bool) -> bool:
    """Whether `index` has to be written to `path`: not where it is there already. Another one there is refused."""
    if not path.exists():
        return True
    try:
        there = _describe(load_index(path))
    except DataError as error:
        there = str(error).splitlines()[0]
    wanted = _describe(index)
    if there != wanted and not force:
        raise DataError(
            f"{path} exists and differs; overwrite it with --force, or name another folder with --out.\n"
            f"  there: {there}\n  now:   {wanted}"
        )
    return there != wanted


def _describe(index: Index) -> str:
    return f"{len(index):,} images of {index.root}, fingerprint {index.fingerprint[:12]}"


def _show_index(scanned: dict[str, _Scanned], paths: dict[str, Path], new: list[str]) -> None:
    console = Console(soft_wrap=True)
    names = ("split", "images", "classes", "median px", "bytes", "bad", "fingerprint", "seconds")
    print_table(names, [(split, *_table_cells(item)) for split, item in scanned.items()])
    for split, item in scanned.items():
        for refused in item.refused[:_SHOWN]:
            console.print(f"left out of {split}: {escape(refused.path)}: {escape(refused.reason)}")
        if len(item.refused) > _SHOWN:
            console.print(f"left out of {split}: and {len(item.refused) - _SHOWN:,} more")
        state = "written" if split in new else "there already, identical"
        console.print(f"{escape(str(paths[split]))}: {state}")


def _table_cells(item: _Scanned) -> tuple[str, ...]:
    index = item.index
    pixels = np.median(index.widths.astype(np.int64) * index.heights)
    return (
        f"{len(index):,}",
        f"{len(index.classes):,}",
        f"{pixels:,.0f}",
        format_bytes(float(index.sizes.sum()), 1),
        f"{len(item.refused):,}",
        index.fingerprint[:12],
        f"{item.seconds:.1f}",
    )


def _one_index(data: Path | None, folder: Path | None, index: Path | None, split: Split) -> Index:
    given = [flag for flag, value in (("--data", data), ("--folder", folder), ("--index", index)) if value is not None]
    if len(given) != 1:
        raise ConfigError(f"give exactly one of --data, --folder and --index; got {', '.join(given) or 'none'}")
    if index is not None:
        return load_index(index)
    if data is None:
        assert folder is not None, "one of the three is given"
        return _scan(split, folder).index
    images, made = data / split, data / f"{split}.index.h5"
    if not made.exists():
        return _scan(split, images).index
    return load_index(made, root=images if images.is_dir() else None)


def main() -> None:
    """Parse the command line and run one of the three commands."""
    commands: dict[str, Callable[..., None]] = {"index": index, "ffcv": ffcv, "demo": demo}
    tyro.extras.subcommand_cli_from_dict(commands, prog="launch/prepare.py", description="Prepare a data set.")


if __name__ == "__main__":
    run_command(main)
