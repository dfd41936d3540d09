"""Does the reference decoder read what ImageFolder reads, refuse the rest by name, and keep quiet about it?"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipeline.data import decode
from pipeline.data.decode import ImageRefusedError, decode_rgb

SIZE = (40, 30)


@pytest.fixture(params=["with simplejpeg", "Pillow alone"], autouse=True)
def _decoders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "Pillow alone":
        monkeypatch.setattr(decode, "simplejpeg", None)
    elif decode.simplejpeg is None:
        pytest.skip("simplejpeg is not installed here")


def photo(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    smooth = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))
    return smooth.convert(mode)


def translucent(mode: str) -> Image.Image:
    image = photo("L" if mode == "LA" else "RGB").convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x112] = orientation
    return tags


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"", interlaced: int = 0
) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + png_chunk(b"IEND", b"")


def ycck() -> bytes:
    """CMYK planes whose Adobe marker says that they are luminance, chrominance and black."""
    data = encoded(photo("CMYK"), "JPEG")
    place = data.index(b"Adobe") + 11
    return data[:place] + b"\2" + data[place + 1 :]


def lying(data: bytes, kind: str) -> bytes:
    """The same file, whose header claims as many pixels as its format can."""
    if kind == "JPEG":
        place = data.index(b"\xff\xc0") + 5
        return data[:place] + struct.pack(">HH", 65500, 65500) + data[place + 4 :]
    if kind == "PNG":
        header = struct.pack(">II", 65500, 65500) + data[24:29]
        return data[:8] + png_chunk(b"IHDR", header) + data[33:]
    place = data.index(b"\x9d\x01\x2a") + 3
    return data[:place] + struct.pack("<HH", 16383, 16383) + data[place + 4 :]


JPEG = encoded(photo(), "JPEG")
PNG = encoded(photo(), "PNG")
WEBP = encoded(photo(), "WEBP")
BAD_EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x112, 3, 0x7FFFFFFF, 8) + bytes(4)
BAD_ANIMATION = png_chunk(b"acTL", struct.pack(">II", 0, 0))

READ: dict[str, Callable[[], bytes]] = {
    "grayscale": lambda: encoded(photo("L"), "JPEG"),
    "CMYK": lambda: encoded(photo("CMYK"), "JPEG"),
    "YCCK": ycck,
    "RGB JPEG": lambda: encoded(photo(), "JPEG", keep_rgb=True),
    "progressive": lambda: encoded(photo(), "JPEG", progressive=True),
    "4:4:4": lambda: encoded(photo(), "JPEG", subsampling="4:4:4"),
    "4:2:2": lambda: encoded(photo(), "JPEG", subsampling="4:2:2"),
    "4:1:1": lambda: encoded(photo(), "JPEG", subsampling="4:1:1"),
    "EXIF 6": lambda: encoded(photo(), "JPEG", exif=exif(6)),
    "trailing bytes": lambda: JPEG + b"\0" * 100,
    "two pictures": lambda: encoded(photo(), "MPO", save_all=True, append_images=[photo().rotate(180)]),
    "damage in the middle": lambda: JPEG[: len(JPEG) - 60] + b"\x55\xaa" + JPEG[len(JPEG) - 58 :],
    "1 pixel wide": lambda: encoded(photo(size=(1, 90)), "JPEG"),
    "1 pixel high": lambda: encoded(photo(size=(90, 1)), "JPEG"),
    "PNG": lambda: PNG,
    "PNG, EXIF 6": lambda: encoded(photo(), "PNG", exif=exif(6)),
    "PNG, trailing bytes": lambda: PNG + b"\0" * 100,
    "RGBA": lambda: encoded(translucent("RGBA"), "PNG"),
    "LA": lambda: encoded(translucent("LA"), "PNG"),
    "1 bit": lambda: encoded(photo("1"), "PNG"),
    "2 bits gray": lambda: png(4, 3, 2, 0, b"\0\x1b" * 3),
    "palette": lambda: encoded(photo("P"), "PNG"),
    "palette of 4": lambda: encoded(photo().quantize(4), "PNG", bits=2),
    "a transparent colour": lambda: encoded(photo(), "PNG", transparency=(1, 2, 3)),
    "a palette's transparent colour": lambda: encoded(photo().quantize(9), "PNG", transparency=3),
    "a translucent palette": lambda: encoded(photo().quantize(9), "PNG", transparency=bytes(range(9))),
    "interlaced": lambda: png(2, 2, 8, 0, b"\0\1\0\2\0\3\4", interlaced=1),
    "WebP": lambda: WEBP,
    "WebP, lossless": lambda: encoded(photo(), "WEBP", lossless=True),
    "WebP, RGBA": lambda: encoded(translucent("RGBA"), "WEBP"),
}


@pytest.mark.parametrize("kind", READ)
def test_pixels_are_those_of_image_folder(kind: str) -> None:
    data = READ[kind]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's own way to them
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    pixels = decode_rgb(data)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable, "torch warns of others"
    assert np.array_equal(pixels, expected)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "neither JPEG, PNG nor WebP"),
    "text": (lambda: b"no image at all", "neither JPEG, PNG nor WebP"),
    "GIF": (lambda: encoded(photo("P"), "GIF"), "format GIF"),
    "a JPEG of two bytes less": (lambda: JPEG[:-2], "truncated"),
    "half a JPEG": (lambda: JPEG[: len(JPEG) - 100], "truncated"),
    "half a JPEG header": (lambda: JPEG[:100], "not a readable image"),
    "half a PNG": (lambda: PNG[: len(PNG) // 2], "damaged or cut off"),
    "a PNG without its end": (lambda: PNG[:-12], "not a readable image"),
    "half a WebP": (lambda: WEBP[: len(WEBP) // 2], "not a readable image"),
    "16 bits gray": (lambda: encoded(Image.fromarray(np.zeros((9, 9), np.uint16)), "PNG"), "16 bits"),
    "16 bits gray and alpha": (lambda: png(2, 2, 16, 4, bytes(18)), "16 bits"),
    "16 bits RGB": (lambda: png(2, 2, 16, 2, bytes(26)), "16 bits"),
    "16 bits RGBA": (lambda: png(2, 2, 16, 6, bytes(34)), "16 bits"),
    "a JPEG that lies": (lambda: lying(JPEG, "JPEG"), "65500 x 65500 pixels, more than 100,000,000"),
    "a PNG that lies": (lambda: lying(PNG, "PNG"), "65500 x 65500 pixels, more than 100,000,000"),
    "a WebP that lies": (lambda: lying(WEBP, "WEBP"), "16383|268402689"),
    "an animated WebP": (lambda: encoded(photo(), "WEBP", save_all=True, append_images=[photo("L")]), "animation"),
    "an animated PNG": (lambda: encoded(photo(), "PNG", save_all=True, append_images=[photo("L")]), "animation"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_serve_is_refused_in_one_line(kind: str) -> None:
    make, reason = REFUSED[kind]
    with pytest.raises(ImageRefusedError, match=reason) as caught:
        decode_rgb(make())
    assert "\n" not in str(caught.value)


WARNED: dict[str, tuple[Callable[[], bytes], str]] = {
    "damaged EXIF": (
        lambda: JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(BAD_EXIF) + 2) + BAD_EXIF + JPEG[2:],
        "Tag data larger than file|Truncated File Read|Corrupt EXIF",
    ),
    "an animation that is none": (lambda: png(2, 2, 8, 2, bytes(14), BAD_ANIMATION), "APNG"),
    "a translucent palette": (READ["a translucent palette"], "Transparency"),
}


@pytest.mark.parametrize("kind", WARNED)
def test_pillow_warns_and_we_do_not(kind: str) -> None:
    make, warning = WARNED[kind]
    data = make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(data)).convert("RGB")
    assert any(re.search(warning, str(one.message)) for one in caught)
    pixels = decode_rgb(data)  # a warning is an error in tests
    assert pixels.shape[2] == 3


def test_the_limit_of_pixels_is_ours_and_pillows_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(PNG))
    decode_rgb(PNG)
    assert Image.MAX_IMAGE_PIXELS == 1000
