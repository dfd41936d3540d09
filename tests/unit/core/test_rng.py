"""Philox against the published known answers; seeds and streams that do not meet."""

import numpy as np
import pytest
import torch

from pipeline.core.errors import ConfigError
from pipeline.core.rng import Stream, below, check_seed, counters, derive_seed, philox, uniform
from pipeline.devices.device_rng import seed_generators

KNOWN_ANSWERS = [  # Random123, kat_vectors: philox4x32 10
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF, 0xFFFFFFFF), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], answer: str) -> None:
    words = philox(np.array([counter], np.uint32), key)
    assert " ".join(f"{word:08x}" for word in words[0]) == answer


def test_blocks_do_not_show() -> None:
    many = counters((np.arange(40_000), 1, 2, 3))
    whole = philox(many, (7, Stream.VIEW))
    apart = np.concatenate([philox(many[:9], (7, Stream.VIEW)), philox(many[9:], (7, Stream.VIEW))])
    assert np.array_equal(whole, apart)


def test_no_counters_no_words() -> None:
    assert philox(np.zeros((0, 4), np.uint32), (0, 0)).shape == (0, 4)


def test_counters_broadcast() -> None:
    assert counters((np.array([5, 6]), 1, np.array([2, 3]), 2**32 - 1)).tolist() == [
        [5, 1, 2, 2**32 - 1],
        [6, 1, 3, 2**32 - 1],
    ]


def test_uniform_covers_the_unit_interval_without_one() -> None:
    edges = uniform(np.array([0, 2**31, 2**32 - 1], np.uint32))
    assert edges.tolist() == [0.0, 0.5, 1 - 2.0**-32]


def test_below_reaches_both_ends_only() -> None:
    words = np.array([0, 2**32 - 1, 2**31], np.uint32)
    assert below(words, np.array([10, 10, 1])).tolist() == [0, 9, 0]


@pytest.mark.parametrize("stream", list(Stream))
def test_words_of_neighbouring_seeds_and_streams_are_unrelated(stream: Stream) -> None:
    many = counters((np.arange(20_000), 0, 0, 0))
    reference = philox(many, (1, stream))
    others = [(0, stream), (2, stream), (1 + 2**31, stream), *[(1, other) for other in Stream if other != stream]]
    for key in others:
        words = philox(many, key)
        assert abs(np.corrcoef(uniform(reference[:, 0]), uniform(words[:, 0]))[0, 1]) < 0.03  # 4 sigma
        assert np.mean(np.bitwise_count(reference ^ words)) == pytest.approx(16, abs=0.06)  # 6 sigma


def test_words_are_uniform() -> None:
    words = philox(counters((np.arange(100_000), 0, 0, 0)), (3, Stream.ORDER))
    for column in words.T:
        counts = np.bincount(column >> np.uint32(24), minlength=256)
        assert np.sum((counts - 390.625) ** 2 / 390.625) < 360  # chi-squared, 255 degrees: 1 in 10^5


def test_derived_seeds_depend_on_every_argument_and_on_their_number() -> None:
    positions = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 0, 1)]
    seeds = {derive_seed(seed, stream, *position) for seed in (0, 1) for stream in Stream for position in positions}
    assert len(seeds) == 2 * len(Stream) * len(positions)
    assert all(0 <= seed < 2**64 for seed in seeds)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_beyond_32_bits_is_refused_by_name(seed: int) -> None:
    with pytest.raises(ConfigError, match=f"plan_seed must lie in .*got {seed}"):
        check_seed("plan_seed", seed)


def test_stream_numbers_are_frozen() -> None:
    assert {stream.name: stream.value for stream in Stream} == {
        "VIEW": 1,
        "ORDER": 2,
        "INITIALISATION": 3,
        "STEP": 4,
        "SYNTHETIC": 5,
        "NEGATIVES": 6,
    }, "a stream's number is part of every recorded result: append new ones, never renumber"


def test_a_steps_generators_are_seeded_as_torch_would() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    seed_generators(torch.device("cpu"), 5)
    assert torch.equal(torch.rand(3), expected)
