"""The reference decoder: the bytes of a JPEG, PNG or WebP file in, RGB pixels out, or the reason why not.

Pillow reads everything and has the last word. An ordinary JPEG is read by simplejpeg where that is installed, in less
time: both hand it to libjpeg-turbo with the same settings, so the bits are the same; what simplejpeg refuses, warns of
or reads in colours of its own (CMYK) is Pillow's again. Both release the GIL while they decode.

Pixels are those of Pillow's `convert("RGB")`, as in torchvision's ImageFolder: transparency is dropped and not blended,
Adobe's inverted CMYK is turned back, palettes are looked up, profiles and EXIF orientation are ignored.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

try:
    import simplejpeg
except ImportError:  # no wheel for this machine
    simplejpeg = None

MAX_PIXELS = 100_000_000  # a header that lies (65500 x 65500) must not make a decoder allocate what it says
_SAME_COLOURS = ("YCbCr", "RGB", "Gray")  # which both decoders turn into RGB alike
_PNG = b"\x89PNG\r\n\x1a\n"
_OTHER_FORMATS = {b"BM": "BMP", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF"}


class ImageRefusedError(ValueError):
    """An image that cannot be read, or that the backends would not read alike; the message is one line."""


def decode_rgb(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8, writable; no warnings, whatever the file.

    Raises:
        ImageRefusedError: see there. Damage that a file's format can tell is told: any of a PNG, the end of a JPEG.
    """
    pixels = _decode_ordinary_jpeg(data)
    return _decode_by_pillow(data) if pixels is None else pixels


@contextmanager
def open_image(file: BinaryIO) -> Iterator[ImageFile]:
    """A Pillow image of at most `MAX_PIXELS` and 8 bits a channel, whose header alone has been read (all of a PNG).

    Pillow's classes are used without `Image.open`, which warns of large images and of metadata that nobody asked for.

    Raises:
        ImageRefusedError: at the start or, from what is done with the image, at the end of the block.
    """
    with _refusing(), _open(file) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageRefusedError(f"{width} x {height} pixels, more than {MAX_PIXELS:,}")
        if getattr(image, "n_frames", 1) > 1:
            raise ImageRefusedError("an animation")
        yield image


def _decode_ordinary_jpeg(data: bytes) -> np.ndarray | None:
    if simplejpeg is None or not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in _SAME_COLOURS or height * width > MAX_PIXELS:
            return None
        return simplejpeg.decode_jpeg(data)
    except ValueError:  # of a warning too: many a file has some bytes too many, and Pillow reads it
        return None


def _decode_by_pillow(data: bytes) -> np.ndarray:
    with open_image(io.BytesIO(data)) as image:
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except ImageRefusedError:
        raise
    except Exception as error:  # Pillow raises whatever the damage provokes: OSError, SyntaxError, struct.error, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImageRefusedError(f"not a readable image: {reason}") from error


def _open(file: BinaryIO) -> ImageFile:
    start = file.read(12)
    file.seek(0)
    if start.startswith(b"\xff\xd8\xff"):
        return _Jpeg(file)
    if start.startswith(_PNG):
        return PngImageFile(io.BytesIO(_bare_png(file)))
    if start.startswith(b"RIFF") and start.endswith(b"WEBP"):
        return WebPImageFile(file)
    for prefix, name in _OTHER_FORMATS.items():
        if start.startswith(prefix):
            raise ImageRefusedError(
                f"format {name}: the backends do not read it alike; convert it to JPEG, PNG or WebP"
            )
    raise ImageRefusedError("not a readable image: neither JPEG, PNG nor WebP")


class _Jpeg(JpegImageFile):
    """A JPEG whose EXIF block stays unread: no pixel depends on it, and Pillow warns of every damaged one."""

    def getexif(self) -> Image.Exif:
        return Image.Exif()


def _bare_png(file: BinaryIO) -> bytes:
    """A PNG without the chunks that decide no opaque pixel; Pillow warns of some, and unpacks others."""
    kept = [file.read(len(_PNG))]
    for name, chunk in _png_chunks(file):
        if name == b"IHDR" and chunk[16:17] == b"\x10":
            raise ImageRefusedError("16 bits a channel: the backends do not read it alike; convert it to 8 bits")
        if name == b"acTL" and chunk[8:12] > b"\0\0\0\1":
            raise ImageRefusedError("an animation")
        if name in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            kept.append(chunk)
    return b"".join(kept)


def _png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Name and bytes of each chunk up to the last, verified: Pillow passes over the checksums of pixels."""
    name = b""
    while name != b"IEND":
        head = file.read(8)
        length, name = struct.unpack(">I4s", head)
        rest = file.read(length + 4)
        if len(rest) != length + 4 or zlib.crc32(name + rest[:-4]) != int.from_bytes(rest[-4:], "big"):
            raise ImageRefusedError(f"not a readable image: the PNG's {name!r} chunk is damaged or cut off")
        yield name, head + rest
