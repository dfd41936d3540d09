"""Scanning a folder: what is refused and how it is named, what is odd and fine."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import DataError
from pipeline.data.decode import MAX_PIXELS
from pipeline.data.scan import scan_folder


def pixels(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_16_bit_rgb() -> bytes:
    header = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(24) for _ in range(3)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def lying_jpeg() -> bytes:
    """A JPEG whose frame header claims 65500 x 65500 pixels."""
    data = bytearray(encoded(pixels(), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 65500, 65500)
    return bytes(data)


def animated_webp() -> bytes:
    return encoded(pixels(), "WEBP", save_all=True, append_images=[pixels().rotate(90), pixels().rotate(180)])


def exif_rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(pixels(), "JPEG", exif=exif)


JPEG = encoded(pixels(), "JPEG")
PNG = encoded(pixels(), "PNG")
WEBP = encoded(pixels(), "WEBP")

BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero bytes": (lambda: b"", "empty"),
    "two bytes short": (lambda: JPEG[:-2], "truncated|not a readable"),
    "half": (lambda: JPEG[: len(JPEG) // 2], "truncated|not a readable"),
    "only a header": (lambda: JPEG[:20], "not a readable"),
    "half a PNG": (lambda: PNG[: len(PNG) // 2], "not a readable"),
    "half a WebP": (lambda: WEBP[: len(WEBP) // 2], "not a readable"),
    "text": (lambda: b"This is not an image.\n" * 50, "not a readable"),
    "16-bit gray PNG": (lambda: encoded(Image.fromarray(np.zeros((9, 9), np.uint16)), "PNG"), "16 bits"),
    "16-bit RGB PNG": (png_16_bit_rgb, "16 bits"),
    "BMP": (lambda: encoded(pixels(), "BMP"), "format BMP"),
    "GIF": (lambda: encoded(pixels(), "GIF"), "format GIF"),
    "TIFF": (lambda: encoded(pixels(), "TIFF"), "format TIFF"),
    "a header that lies": (lying_jpeg, "pixels"),
    "animated WebP": (animated_webp, "animation"),
}

ODD: dict[str, tuple[Callable[[], bytes], tuple[int, int]]] = {
    "grayscale": (lambda: encoded(pixels(mode="L"), "JPEG"), (64, 48)),
    "CMYK": (lambda: encoded(pixels(mode="CMYK"), "JPEG"), (64, 48)),
    "PNG": (lambda: PNG, (64, 48)),
    "PNG with alpha": (lambda: encoded(pixels(mode="RGBA"), "PNG"), (64, 48)),
    "PNG with palette": (lambda: encoded(pixels(mode="P"), "PNG"), (64, 48)),
    "WebP": (lambda: WEBP, (64, 48)),
    "EXIF 6": (exif_rotated, (64, 48)),
    "progressive": (lambda: encoded(pixels(), "JPEG", progressive=True), (64, 48)),
    "trailing bytes": (lambda: JPEG + b"\0" * 100, (64, 48)),
    "1 pixel wide": (lambda: encoded(pixels(1, 300), "JPEG"), (1, 300)),
    "1 pixel high": (lambda: encoded(pixels(300, 1), "JPEG"), (300, 1)),
    "6000 x 4000": (lambda: encoded(Image.new("RGB", (6000, 4000), "teal"), "JPEG"), (6000, 4000)),
}


def write(root: Path, name: str, data: bytes) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(data)


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("verify", ["ends", "decode"])
def test_a_bad_file_is_refused_by_name_or_left_out(kind: str, verify: str, tmp_path: Path) -> None:
    make, reason = BAD[kind]
    write(tmp_path, "cat/bad one.JPEG", make())
    write(tmp_path, "cat/good.JPEG", JPEG)
    with pytest.raises(DataError, match=rf"1 file\(s\)(.|\n)*cat/bad one\.JPEG: .*({reason})(.|\n)*--bad skip"):
        scan_folder(tmp_path, verify=verify)
    index, refused = scan_folder(tmp_path, bad="skip", verify=verify)
    assert [item.path for item in refused] == ["cat/bad one.JPEG"]
    assert index.path_of(0).endswith("cat/good.JPEG")
    assert len(index) == 1


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("verify", ["ends", "decode"])
def test_an_odd_file_is_accepted_with_its_unrotated_size(kind: str, verify: str, tmp_path: Path) -> None:
    make, size = ODD[kind]
    write(tmp_path, "cat/odd.JPEG", make())
    index, refused = scan_folder(tmp_path, verify=verify)
    assert not refused
    assert (int(index.widths[0]), int(index.heights[0])) == size
    assert int(index.sizes[0]) == (tmp_path / "cat/odd.JPEG").stat().st_size


def test_the_limit_of_pixels_admits_the_largest_of_imagenet() -> None:
    assert MAX_PIXELS >= 9331 * 6530  # n07693725, the largest image of the 2012 training set


def test_ids_follow_sorted_classes_and_files(tmp_path: Path) -> None:
    names = ["b/2.jpg", "b/10.jpg", "a/z.png", "a/sub/y.jpeg", "a/A.JPG"]
    for name in names:
        write(tmp_path, name, PNG)
    for ignored in (".cache/x.jpg", "a/.hidden.jpg", "a/notes.txt", "loose.jpg"):
        write(tmp_path, ignored, PNG)
    index, _ = scan_folder(tmp_path)
    assert index.classes == ("a", "b")
    found = [str(Path(index.path_of(i)).relative_to(tmp_path.resolve())) for i in range(len(index))]
    assert found == ["a/A.JPG", "a/sub/y.jpeg", "a/z.png", "b/10.jpg", "b/2.jpg"]
    assert index.labels.tolist() == [0, 0, 0, 1, 1]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder: .*nowhere"):
        scan_folder(tmp_path / "nowhere")


def test_a_folder_without_classes_is_named(tmp_path: Path) -> None:
    write(tmp_path, "loose.jpg", JPEG)
    with pytest.raises(DataError, match="holds no class folders"):
        scan_folder(tmp_path)


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    write(tmp_path, "cat/a.jpg", JPEG)
    write(tmp_path, "dog/readme.txt", b"none yet")
    with pytest.raises(DataError, match=r"dog holds no image"):
        scan_folder(tmp_path)


def test_a_class_that_skipping_empties_is_named(tmp_path: Path) -> None:
    write(tmp_path, "cat/a.jpg", JPEG)
    write(tmp_path, "dog/a.jpg", b"")
    with pytest.raises(DataError, match=r"these classes are empty: .*dog"):
        scan_folder(tmp_path, bad="skip")


def test_a_long_list_of_bad_files_is_cut(tmp_path: Path) -> None:
    for number in range(30):
        write(tmp_path, f"cat/{number:02d}.jpg", b"")
    with pytest.raises(DataError, match=r"30 file\(s\)(.|\n)*cat/19\.jpg(.|\n)*and 10 more"):
        scan_folder(tmp_path)


def test_a_parallel_scan_equals_a_serial_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        write(tmp_path, f"{'abc'[number % 3]}/{number:02d}.jpg", JPEG if number else b"")
    steps: list[tuple[int, int]] = []
    serial, refused = scan_folder(tmp_path, bad="skip", on_progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (12, 12)
    monkeypatch.setattr("pipeline.data.scan._CHUNK", 2)
    parallel, refused_too = scan_folder(tmp_path, bad="skip")
    assert parallel.fingerprint == serial.fingerprint
    assert refused_too == refused


def test_an_undecodable_name_is_kept(tmp_path: Path) -> None:
    write(tmp_path, os.fsdecode(b"cat/\xff\xfe.jpg"), JPEG)
    index, _ = scan_folder(tmp_path)
    assert Path(index.path_of(0)).read_bytes() == JPEG
