"""Writing .beton files: resized copies of a data set's images in FFCV's format. See `beton` for the layout."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pipeline.core.atomic import publish
from pipeline.core.cpu import usable_cpus
from pipeline.core.errors import BadImageError, DataError
from pipeline.data.backends.torchvision import read_rgb
from pipeline.data.beton import (
    COLUMNS,
    FFCV_VERSION,
    HEADER,
    JPEG,
    RAW,
    CopyRecipe,
    Encoding,
    ffcv_module,
    reflux_block,
)
from pipeline.data.index import Index
from pipeline.data.scan import BadFile, bad_files_message

_MIN_PAGE_BYTES = 1 << 23
_AGREES = 8.0  # of 255: mean difference up to which the fast decoder and the reference have read the same picture


def write_beton(
    index: Index,
    path: Path,
    *,
    encoding: Encoding,
    max_side: int = 500,
    quality: int = 90,
    num_workers: int | None = None,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write copies of all images of `index` to a new file, complete or not at all.

    Originals are read by the reference decoder, so that grayscale, CMYK, PNG and rotated files come out as that
    backend sees them, and shrunk (area filter) until the longer side fits `max_side`. With `jpeg`, the bytes of an
    original that is a JPEG and needs no shrinking are kept, where FFCV's decoder reads them like the reference: no
    second lossy encoding. The bytes of the file depend on neither the threads nor the machine's number of cores.

    Threads read and encode, one thread writes with FFCV's allocator and record types. FFCV's `DatasetWriter` is not
    used: it waits for ever for a worker that died, and keeps the records in /dev/shm, 64 MB in a usual container.

    Args:
        num_workers: reading threads; None for one a core.
        overwrite: replace an existing file, at the end, instead of refusing it.
        on_progress: called with (images done, images in all).

    Raises:
        ConfigError: a bad `max_side` or `quality`; FFCV missing.
        DataError: `path` exists; images that cannot be decoded (all of them named); no space.
    """
    recipe = CopyRecipe(encoding, max_side, quality)
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists and nothing is overwritten: remove it, or choose another name")
    ffcv_module("writer")
    bad: list[BadFile] = []
    try:
        with publish(path) as temporary:
            copies = _copies(index, recipe, num_workers or usable_cpus())
            _write(temporary, index, recipe, _sorted_out(copies, bad, len(index), on_progress))
            if bad:
                raise DataError(bad_files_message(index.root, bad))
    except OSError as error:
        raise DataError(
            f"{path} could not be written: {error}\nFree some space, or use --encoding jpeg or a smaller --max-side."
        ) from error


def copy_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """(width, height) of an original's copy: the longer side at most `max_side`, the shorter rounded, at least 1."""
    longer = max(width, height)
    if longer <= max_side:
        return width, height
    return max(1, round(width * max_side / longer)), max(1, round(height * max_side / longer))


@dataclass(frozen=True)
class _Copy:
    mode: int
    width: int
    height: int
    data: np.ndarray


def _copies(index: Index, recipe: CopyRecipe, num_workers: int) -> Iterator[_Copy | BadFile]:
    """Copies in row order; in the place of an image that cannot be decoded, why."""
    waiting: deque[Future[_Copy | BadFile]] = deque()
    with ThreadPoolExecutor(num_workers, "copy") as pool:
        try:
            for sample_id in index.ids:
                waiting.append(pool.submit(_copy, index, int(sample_id), recipe))
                if len(waiting) > 4 * num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _sorted_out(
    results: Iterator[_Copy | BadFile], bad: list[BadFile], total: int, on_progress: Callable[[int, int], None] | None
) -> Iterator[tuple[int, _Copy]]:
    """Rows with their copies; the others go to `bad`."""
    for row, result in enumerate(results):
        if isinstance(result, BadFile):
            bad.append(result)
        else:
            yield row, result
        if on_progress is not None:
            on_progress(row + 1, total)


def _copy(index: Index, sample_id: int, recipe: CopyRecipe) -> _Copy | BadFile:
    path = index.path_of(sample_id)
    try:
        image = read_rgb(index, sample_id).permute(1, 2, 0).contiguous().numpy()
    except BadImageError as error:
        return BadFile(os.path.relpath(path, index.root), error.reason)
    height, width, _ = image.shape
    size = copy_size(width, height, recipe.max_side)
    if recipe.encoding == "jpeg" and size == (width, height):
        original = np.fromfile(path, np.uint8)
        if _decodes_to(original, image):
            return _Copy(JPEG, width, height, original)
    return _encode(_shrink(image, size), recipe)


def _decodes_to(data: np.ndarray, image: np.ndarray) -> bool:
    """Whether FFCV's decoder reads the same picture (not CMYK, PNG, odd colour spaces, or files it complains of)."""
    height, width, _ = image.shape
    decoded = np.empty_like(image)
    failed = ffcv_module("libffcv").imdecode(data, decoded, height, width, height, width)
    return not failed and float(np.abs(decoded.astype(np.int16) - image).mean()) <= _AGREES


def _shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import cv2

    return image if size == image.shape[1::-1] else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _encode(image: np.ndarray, recipe: CopyRecipe) -> _Copy:
    height, width, _ = image.shape
    if recipe.encoding == "raw":
        return _Copy(RAW, width, height, image.reshape(-1))
    return _Copy(JPEG, width, height, ffcv_module("fields.rgb_image").encode_jpeg(image, recipe.quality))


def _write(path: Path, index: Index, recipe: CopyRecipe, copies: Iterator[tuple[int, _Copy]]) -> None:
    types, handlers = ffcv_module("types"), ffcv_module("fields")
    fields = {"image": handlers.RGBImageField(), **{name: handlers.IntField() for name in COLUMNS}}
    records = np.zeros(len(index), types.get_metadata_type(list(fields.values())))
    for position, name in enumerate(COLUMNS, start=1):
        records[f"f{position}"] = getattr(index, f"{name}s")
    descriptors = _descriptors(fields, types).tobytes()
    page_bytes = _page_bytes(index, recipe)
    path.write_bytes(bytes(HEADER.size) + descriptors)  # the allocator pads what is missing up to the first page
    first = HEADER.size + len(descriptors) + records.nbytes
    allocations = _write_pages(path, first, page_bytes, copies, records["f0"])
    table = np.array(allocations, types.ALLOC_TABLE_TYPE).tobytes()
    header = (FFCV_VERSION, len(fields), page_bytes, len(index))
    rest = descriptors + records.tobytes()
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(reflux_block(index, recipe, HEADER.pack(*header, 0) + rest, table))
        table_at = file.tell()
        file.write(table)
        file.seek(0)
        file.write(HEADER.pack(*header, table_at) + rest)


def _descriptors(fields: dict[str, Any], types: ModuleType) -> np.ndarray:
    codes = {handler: code for code, handler in types.TYPE_ID_HANDLER.items()}
    descriptors = np.zeros(len(fields), types.FieldDescType)
    for row, (name, field) in zip(descriptors, fields.items(), strict=True):
        row["type_id"] = codes[type(field)]
        row["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
        row["arguments"] = field.to_binary()[0]
    return descriptors


def _page_bytes(index: Index, recipe: CopyRecipe) -> int:
    """A power of two that holds the largest copy, whatever its encoding."""
    scale = np.minimum(1.0, recipe.max_side / np.maximum(index.widths, index.heights))
    pixels = np.ceil(index.widths * scale) * np.ceil(index.heights * scale)
    largest = max(4 * int(pixels.max()), int(index.sizes.max()), _MIN_PAGE_BYTES)  # 3 bytes a pixel, and some room
    return 1 << (largest - 1).bit_length()


def _write_pages(
    path: Path, start: int, page_bytes: int, copies: Iterator[tuple[int, _Copy]], images: np.ndarray
) -> list[tuple[int, int, int]]:
    """Append the pages; fill in the image records; return FFCV's (row, offset, size) of every copy."""
    allocator = ffcv_module("memory_allocator").MemoryAllocator(str(path), start, page_bytes)
    with allocator:
        for row, copy in copies:
            allocator.set_current_sample(row)
            offset, room = allocator.malloc(copy.data.nbytes)
            room[:] = copy.data
            images[row] = (copy.mode, copy.width, copy.height, offset)
    allocations: list[tuple[int, int, int]] = allocator.allocations
    return allocations
