"""Scanning a folder of class folders into an index: sizes from image headers, in parallel, bad files by name."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pipeline.core.cpu import map_spawned
from pipeline.core.errors import DataError
from pipeline.data.decode import ImageRefusedError, decode_rgb, open_image
from pipeline.data.index import Index, SampleRecord, pack_index

OnBadFile = Literal["refuse", "skip"]
Verify = Literal["ends", "decode"]
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
_CHUNK = 512
_FEW_CHUNKS = 4  # scanned here and now: starting processes would take longer
_SHOWN = 20


@dataclass(frozen=True)
class BadFile:
    """A file that the index refuses, and why."""

    path: str
    reason: str


def scan_folder(
    root: Path,
    *,
    bad: OnBadFile = "refuse",
    verify: Verify = "ends",
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Index, list[BadFile]]:
    """Index the images of `root/<class>/**`.

    Args:
        bad: what to do about files that cannot serve: stop and list them, or leave them out (and return them).
        verify: `ends` reads headers, the last bytes, and a PNG's checksums, and decodes what looks truncated; `decode`
            decodes everything.
        on_progress: called with (files done, files in all).

    Raises:
        DataError: no such folder, no class folders, an empty class, or (with `refuse`) bad files, listed.
    """
    classes, files = list_files(root)
    records: list[SampleRecord] = []
    refused: list[BadFile] = []
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    inspected = map_spawned(partial(_inspect_chunk, root, verify), chunks, here=len(chunks) <= _FEW_CHUNKS)
    for chunk, results in zip(chunks, inspected, strict=True):
        for (name, label), result in zip(chunk, results, strict=True):
            if isinstance(result, str):
                refused.append(BadFile(name, result))
            else:
                records.append(SampleRecord(name, label, *result))
        if on_progress is not None:
            on_progress(len(records) + len(refused), len(files))
    if refused and bad == "refuse":
        raise DataError(bad_files_message(root, refused))
    _check_no_class_lost(classes, records)
    return pack_index(root.resolve(), classes, records), refused


def list_files(root: Path) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    """Class names, and (relative path, label) of every image file, in id order."""
    if not root.is_dir():
        raise DataError(f"no such folder: {root}\nImages are expected in {root}/<class name>/<file>.")
    classes = tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != "."))
    if not classes:
        raise DataError(f"{root} holds no class folders; images are expected in {root}/<class name>/<file>")
    files = []
    for label, name in enumerate(classes):
        found = sorted(_image_files(root, name))
        if not found:
            raise DataError(
                f"class folder {root / name} holds no image ({', '.join(EXTENSIONS)}).\n"
                "Remove the folder if the class is not meant, or put its images there."
            )
        files += [(path, label) for path in found]
    return classes, files


def inspect_image(path: Path, verify: Verify) -> tuple[int, int, int] | str:
    """(width, height, byte size) of an image that every backend reads alike, or the reason why it is refused."""
    try:
        size_bytes = path.stat().st_size
        if size_bytes == 0:
            return "the file is empty (0 bytes)"
        with path.open("rb") as file, open_image(file) as image:
            width, height = image.size
            kind = str(image.format)
        if verify == "decode" or not _has_proper_end(path, kind, size_bytes):
            decode_rgb(path.read_bytes())
    except ImageRefusedError as error:
        return str(error)
    except OSError as error:
        return f"not a readable image: {error}"
    return width, height, size_bytes


def bad_files_message(root: Path, refused: list[BadFile]) -> str:
    """The list a person needs to repair a data set."""
    lines = [f"  {item.path}: {item.reason}" for item in refused[:_SHOWN]]
    more = [f"  ... and {len(refused) - _SHOWN} more"] if len(refused) > _SHOWN else []
    remedy = "Repair or remove them, or leave them out with `launch/prepare.py index --bad skip`."
    return "\n".join([f"{len(refused)} file(s) under {root} cannot serve as training images:", *lines, *more, remedy])


def _has_proper_end(path: Path, kind: str, size_bytes: int) -> bool:
    with path.open("rb") as file:
        if kind == "WEBP":
            file.seek(4)
            return int.from_bytes(file.read(4), "little") + 8 <= size_bytes
        file.seek(max(0, size_bytes - 2))
        return kind == "PNG" or file.read() == b"\xff\xd9"


def _image_files(root: Path, class_name: str) -> Iterator[str]:
    for folder, _, names in os.walk(root / class_name):
        relative = os.path.relpath(folder, root)
        yield from (f"{relative}/{name}" for name in names if name.lower().endswith(EXTENSIONS) and name[0] != ".")


def _inspect_chunk(root: Path, verify: Verify, chunk: list[tuple[str, int]]) -> list[tuple[int, int, int] | str]:
    return [inspect_image(root / name, verify) for name, _ in chunk]


def _check_no_class_lost(classes: tuple[str, ...], records: list[SampleRecord]) -> None:
    lost = sorted(set(range(len(classes))) - {record.label for record in records})
    if lost:
        raise DataError(f"without the bad files these classes are empty: {[classes[label] for label in lost][:10]}")
