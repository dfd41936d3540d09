"""simplejpeg, where it reads a JPEG in Pillow's place, reads the same bits: one reference, whatever is installed."""

from pathlib import Path

import numpy as np
import pytest
from conftest import write_photo

from pipeline.data import decode

pytestmark = pytest.mark.skipif(decode.simplejpeg is None, reason="simplejpeg is not installed here")


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_generated_photos_to_the_last_bit(subsampling: str, progressive: bool, tmp_path: Path) -> None:
    for number, (width, height) in enumerate([(500, 375), (333, 500), (65, 47), (16, 17), (1, 9), (9, 1)]):
        path = tmp_path / f"{number}.jpg"
        quality = 60 + 7 * number
        write_photo(path, width, height, number, quality=quality, subsampling=subsampling, progressive=progressive)
        same_bits(path)


def test_real_photos_to_the_last_bit(imagenet_sample: Path) -> None:
    for path in sorted(imagenet_sample.rglob("*.JPEG"))[::20]:
        same_bits(path)


def same_bits(path: Path) -> None:
    data = path.read_bytes()
    fast = decode._decode_ordinary_jpeg(data)
    assert fast is not None, f"simplejpeg left {path} to Pillow"
    assert np.array_equal(fast, decode._decode_by_pillow(data)), path
