"""The checksum beside every row is zlib's CRC-32, whichever library computes it."""

import zlib

import numpy as np
import pytest

from stores.checksum import row_crcs


@pytest.mark.parametrize("width", [1, 7, 20, 1000, 4099])
def test_rows_have_the_crc_that_zlib_gives(width: int) -> None:
    rng = np.random.default_rng(width)
    labels = rng.integers(-5, 2**31 - 1, 33, dtype=np.int32).astype("<i4")
    plans = rng.integers(0, 2**32, 33, dtype=np.uint32).astype("<u4")
    payloads = [rng.integers(0, 255, (33, width), dtype=np.uint8), rng.normal(size=33).astype("<f4")]
    expected = []
    for row in range(33):
        message = labels[row].tobytes() + plans[row].tobytes() + b"".join(part[row].tobytes() for part in payloads)
        expected.append(zlib.crc32(message))
    assert row_crcs(labels, plans, payloads).tolist() == expected
