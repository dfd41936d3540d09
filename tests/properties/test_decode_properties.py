"""Whatever befalls an image file after it was indexed, reading it gives an image of the index's size, or its name."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.core.errors import BadImageError
from pipeline.data import decode
from pipeline.data.backends.torchvision import read_rgb
from pipeline.data.decode import ImageRefusedError, decode_rgb
from pipeline.data.index import Index
from pipeline.data.scan import scan_folder

SIZE = (24, 18)


@contextmanager
def decoders(choice: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if choice == "pillow":
            patch.setattr(decode, "simplejpeg", None)
        yield


def encoded(mode: str, kind: str, **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


FILES = {
    "jpeg": encoded("RGB", "JPEG"),
    "progressive": encoded("RGB", "JPEG", progressive=True),
    "gray": encoded("L", "JPEG"),
    "cmyk": encoded("CMYK", "JPEG"),
    "png": encoded("RGB", "PNG"),
    "palette": encoded("P", "PNG"),
    "translucent": encoded("RGBA", "PNG"),
    "webp": encoded("RGB", "WEBP"),
    "lossless": encoded("RGB", "WEBP", lossless=True),
}
JPEGS = ("jpeg", "progressive", "gray", "cmyk")
CASES = [(name, "simplejpeg") for name in JPEGS] + [(name, "pillow") for name in FILES]


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """One image, to be written over."""
    root = tmp_path_factory.mktemp("images")
    (root / "cat").mkdir()
    (root / "cat" / "one.jpg").write_bytes(FILES["jpeg"])
    return scan_folder(root)[0]


def is_read(index: Index, data: bytes) -> bool:
    """Whether the index's image, with these bytes, is read; nothing but a BadImageError may say that it is not."""
    Path(index.path_of(0)).write_bytes(data)
    try:
        image = read_rgb(index, 0)
    except BadImageError:
        return False
    assert image.shape == (3, *SIZE[::-1])
    return True


@pytest.mark.parametrize("depth", [np.uint16, np.uint8])
def test_a_file_that_was_exchanged_is_refused_with_its_name(depth: type, indexed: Index) -> None:
    path = Path(indexed.path_of(0))
    size = SIZE if depth == np.uint16 else SIZE[::-1]
    Image.fromarray(np.zeros(size[::-1], depth)).save(path, "PNG")
    with pytest.raises(
        BadImageError, match="16 bits" if depth == np.uint16 else "18 x 24 pixels, the index says 24 x 18"
    ) as caught:
        read_rgb(indexed, 0)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["png", "palette", "translucent"])
def test_every_flipped_bit_of_a_png_is_found(name: str) -> None:
    decode_rgb(FILES[name])
    for bit in range(8 * len(FILES[name])):
        with pytest.raises(ImageRefusedError):
            decode_rgb(flipped(FILES[name], bit))


@pytest.mark.parametrize(("name", "choice"), [case for case in CASES if case[0] in (*JPEGS, "webp", "lossless")])
def test_a_flipped_bit_is_an_image_or_an_error_by_name(name: str, choice: str, indexed: Index) -> None:
    data = FILES[name]
    bits = np.random.default_rng(1).permutation(8 * len(data))[:300].tolist()
    with decoders(choice):
        read = sum(is_read(indexed, flipped(data, bit)) for bit in bits)
    assert 0 < read < len(bits)


@pytest.mark.parametrize(("name", "choice"), CASES)
def test_a_file_that_is_cut_off_is_refused(name: str, choice: str, indexed: Index) -> None:
    with decoders(choice):
        for length in range(0, len(FILES[name]), 7):
            assert not is_read(indexed, FILES[name][:length]), length


@given(st.sampled_from(CASES), st.integers(0, 2000), st.integers(0, 60), st.binary(max_size=60))
def test_any_damage_is_an_image_or_an_error_by_name(
    indexed: Index, case: tuple[str, str], at: int, removed: int, inserted: bytes
) -> None:
    name, choice = case
    data = FILES[name]
    place = at % len(data)
    with decoders(choice):
        is_read(indexed, data[:place] + inserted + data[place + removed :])


def flipped(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)
