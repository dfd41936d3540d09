"""The .beton file: FFCV's format, plus what makes a run reproducible from the file alone. Reading; see `beton_writer`.

Layout, FFCV's own parts marked with a star:

    header*  field descriptors*  one record a sample*  pages of image bytes*  Reflux block  allocation table*

The Reflux block is JSON and a footer that ends where the allocation table starts, a place that FFCV's header names and
that its reader passes over: FFCV's own `Loader` reads these files too. The block holds the index fingerprint, the class
list, how the copies were made, and a CRC-32 of all that is not image bytes.
"""

import importlib
import importlib.util
import json
import os
import struct
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Literal

import numpy as np
import torch

from pipeline.core.errors import DataError, MissingPackageError
from pipeline.core.ranges import Range
from pipeline.data.index import Index, without_files

BETON_VERSION = 1
JPEG, RAW = 0, 1  # FFCV's codes in a record's `mode`
COLUMNS = ("label", "id", "width", "height")  # FFCV fields after the image, of the originals
FFCV_VERSION = 2
HEADER = struct.Struct("<HHIQQ")  # FFCV's: version, number of fields, page size, samples, place of the allocation table
Encoding = Literal["raw", "jpeg"]

_INSTALL = (
    "apt-get install -y libopencv-dev libturbojpeg0-dev pkg-config g++\n    pip install --no-build-isolation ffcv"
)
_MAKE = "Make one with: python launch/prepare.py ffcv --data DIR --out FILE.beton"
_MAGIC = b"RFLXBETN"
_FOOTER = struct.Struct("<8sII")  # magic, bytes of JSON before the footer, their CRC-32
_ALLOCATION_BYTES = 24


@dataclass(frozen=True)
class CopyRecipe:
    """How the copies in a .beton were made from the originals.

    Attributes:
        encoding: raw pixels, or JPEG.
        max_side: the longer side of a copy is at most this many pixels.
        quality: of JPEG copies (raw: not used).
    """

    encoding: Encoding
    max_side: int
    quality: int

    def __post_init__(self) -> None:
        Range(least=16, most=65500).check("--max-side", self.max_side)  # JPEG ends there
        Range(least=1, most=100).check("--quality", self.quality)


@dataclass(frozen=True)
class Beton:
    """What the records of a .beton say, N rows, sorted by sample id.

    Attributes:
        path: the file.
        index: ids, labels and sizes of the originals; without paths.
        recipe: how the copies were made.
        modes: (N,) uint8, `JPEG` or `RAW`.
        widths: (N,) uint16, pixels of the copies.
        heights: (N,) uint16.
        offsets: (N,) uint64, where a copy's bytes start in the file.
        sizes: (N,) uint64 bytes.
    """

    path: Path
    index: Index
    recipe: CopyRecipe
    modes: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray


def availability() -> str | None:
    """Why .beton files can be neither written nor read here, or None where they can."""
    if importlib.util.find_spec("ffcv") is None:
        return f"FFCV is not installed here. Install it with:\n    {_INSTALL}"
    return None


def ffcv_module(name: str) -> ModuleType:
    """Import `ffcv.NAME`, and undo what that import does to torch: it sets the whole process to one thread.

    Raises:
        MissingPackageError: FFCV is not installed, or a library of it is missing.
    """
    num_threads = torch.get_num_threads()
    try:
        return importlib.import_module(f"ffcv.{name}")
    except ImportError as error:
        raise MissingPackageError(f"FFCV ({error})", _INSTALL) from error
    finally:
        if torch.get_num_threads() != num_threads:
            torch.set_num_threads(num_threads)


def read_beton_index(path: Path) -> Index:
    """The index of a .beton, from the file alone: training needs no folder of images. Paths are empty, byte sizes 0.

    Raises:
        DataError: see `open_beton`.
        MissingPackageError: FFCV is not installed.
    """
    return open_beton(path).index


def open_beton(path: Path) -> Beton:
    """Read and check everything but the image bytes.

    Raises:
        DataError: no such file, not a .beton, one without the Reflux block, truncated, damaged, or of a newer version.
        MissingPackageError: FFCV is not installed.
    """
    block = _read_block(path)
    reader = ffcv_module("reader").Reader(str(path))
    records = {name: reader.metadata[f"f{position}"] for position, name in enumerate(reader.field_names)}
    columns = (
        *(records["image"][name] for name in ("mode", "width", "height", "data_ptr")),
        reader.alloc_table["size"],
    )
    return Beton(path, _index(block, records), CopyRecipe(**block["recipe"]), *map(np.ascontiguousarray, columns))


def reflux_block(index: Index, recipe: CopyRecipe, head: bytes, table: bytes) -> bytes:
    """The bytes that stand before the allocation table.

    Args:
        head: header (its last field, the place of the table, 0), descriptors and records.
        table: the allocation table.
    """
    content = {
        "version": BETON_VERSION,
        "fingerprint": index.fingerprint,
        "num_parent": index.num_parent,
        "classes": list(index.classes),
        "recipe": asdict(recipe),
        "head_bytes": len(head),
        "crc32": zlib.crc32(table, zlib.crc32(head)),
    }
    text = json.dumps(content, sort_keys=True).encode()
    return text + _FOOTER.pack(_MAGIC, len(text), zlib.crc32(text))


def _index(block: dict[str, Any], records: dict[str, np.ndarray]) -> Index:
    return Index(
        root=Path(),
        classes=tuple(block["classes"]),
        fingerprint=block["fingerprint"],
        num_parent=block["num_parent"],
        ids=records["id"].astype(np.int64),
        labels=records["label"].astype(np.int32),
        widths=records["width"].astype(np.int32),
        heights=records["height"].astype(np.int32),
        **without_files(len(records["id"])),
    )


def _read_block(path: Path) -> dict[str, Any]:
    """The Reflux block, after every check that needs no image bytes."""
    try:
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            num_samples, table_at = _read_header(path, file, size_bytes)
            block = _parse_block(path, file, table_at)
            if table_at + num_samples * _ALLOCATION_BYTES != size_bytes:
                raise _truncated(path, size_bytes)
            if _crc_of_records(file, block["head_bytes"], table_at) != block["crc32"]:
                raise DataError(f"{path} is damaged: its records fail their CRC-32. Copy or write the file again.")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.\n{_MAKE}") from error
    return block


def _read_header(path: Path, file: BinaryIO, size_bytes: int) -> tuple[int, int]:
    """(number of samples, place of the allocation table) of anything that FFCV would open."""
    version, num_fields, page_bytes, num_samples, table_at = _read_struct(file, HEADER)
    if version != FFCV_VERSION or not num_fields or page_bytes < 1 << 21 or page_bytes & (page_bytes - 1):
        raise DataError(f"{path} is not a .beton file of FFCV (version {FFCV_VERSION}).\n{_MAKE}")
    if not table_at or table_at > size_bytes:
        raise _truncated(path, size_bytes)
    return num_samples, table_at


def _parse_block(path: Path, file: BinaryIO, table_at: int) -> dict[str, Any]:
    file.seek(max(HEADER.size, table_at - _FOOTER.size))
    magic, num_bytes, crc = _read_struct(file, _FOOTER)
    if magic != _MAGIC:
        raise DataError(
            f"{path} is an FFCV file without Reflux's block of sample ids, classes and fingerprint: another program "
            f"wrote it, or its end is damaged.\n{_MAKE}"
        )
    file.seek(max(0, table_at - _FOOTER.size - num_bytes))
    text = file.read(num_bytes)
    if zlib.crc32(text) != crc:
        raise DataError(f"{path} is damaged: its Reflux block fails its CRC-32. Copy or write the file again.")
    block: dict[str, Any] = json.loads(text)
    if block["version"] != BETON_VERSION:
        raise DataError(
            f"{path} has version {block['version']} of Reflux's block, this program reads {BETON_VERSION}: "
            "update Reflux, or write the file again"
        )
    return block


def _read_struct(file: BinaryIO, struct_: struct.Struct) -> tuple[Any, ...]:
    """What stands there; zeros where the file has ended."""
    return struct_.unpack(file.read(struct_.size).ljust(struct_.size, b"\0"))


def _crc_of_records(file: BinaryIO, head_bytes: int, table_at: int) -> int:
    file.seek(0)
    header = HEADER.pack(*_read_struct(file, HEADER)[:-1], 0)
    crc = zlib.crc32(file.read(head_bytes - HEADER.size), zlib.crc32(header))
    file.seek(table_at)
    return zlib.crc32(file.read(), crc)


def _truncated(path: Path, size_bytes: int) -> DataError:
    return DataError(f"{path} is truncated or was never finished ({size_bytes:,} bytes). Copy or write the file again.")
