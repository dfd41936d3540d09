"""Negatives drawn on the device: their bits, their classes, their frequencies."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from pipeline.core.errors import ConfigError
from pipeline.core.rng import Stream, counters, philox
from pipeline.devices.device_rng import below, philox_words
from pipeline.methods._shared.negatives import NegativeSampler

CPU = torch.device("cpu")
COUNTS = (5, 1, 9, 0, 25)


def test_the_device_draws_the_bits_of_the_host() -> None:
    rng = np.random.default_rng(0)
    words = [rng.integers(0, 2**32, 200, dtype=np.uint64) for _ in range(4)]
    for key in ((0, 0), (7, int(Stream.NEGATIVES)), (2**32 - 1, 2**32 - 1)):
        expected = philox(counters(tuple(words)), key)  # type: ignore[arg-type]
        found = philox_words(tuple(torch.from_numpy(word.astype(np.int64)) for word in words), key, device=CPU)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.numpy(), expected)


def test_the_published_known_answer() -> None:
    words = philox_words((0, 0, 0, 0), (0, 0), device=CPU)
    assert [f"{word:08x}" for word in words.tolist()] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


def test_below_covers_its_range_at_the_ends() -> None:
    ends = torch.tensor([0, 2**32 - 1])
    assert below(ends, 1_281_167).tolist() == [0, 1_281_166]


def labels_and_ids() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
    return labels, torch.arange(len(labels))


def test_negatives_are_uniform_over_all_other_classes() -> None:
    labels, ids = labels_and_ids()
    drawn = NegativeSampler(COUNTS, num_negatives=2001, seed=3)(labels, ids, 0)
    assert drawn.shape == (40, 2002)
    assert torch.equal(drawn[:, 0], ids)
    for row, label in zip(drawn[:, 1:], labels, strict=True):
        assert not (labels[row] == label).any()
        others = torch.bincount(row, minlength=len(labels))[labels != label]
        assert chisquare(others.numpy()).pvalue > 1e-4


def test_a_draw_depends_on_seed_epoch_and_sample_alone() -> None:
    labels, ids = labels_and_ids()
    sampler = NegativeSampler(COUNTS, num_negatives=6, seed=3)
    whole, part = sampler(labels, ids, 4), sampler(labels[10:13], ids[10:13], 4)
    assert torch.equal(whole[10:13], part)
    assert not torch.equal(sampler(labels, ids, 5)[:, 1:], whole[:, 1:])
    assert not torch.equal(NegativeSampler(COUNTS, num_negatives=6, seed=4)(labels, ids, 4)[:, 1:], whole[:, 1:])


def test_a_relaxed_positive_is_a_sample_of_the_class() -> None:
    labels, ids = labels_and_ids()
    positives = NegativeSampler(COUNTS, num_negatives=4, seed=0, positive="relax")(labels, ids, 0)[:, 0]
    assert torch.equal(labels[positives], labels)
    assert not torch.equal(positives, ids)


def test_one_class_has_no_negatives() -> None:
    with pytest.raises(ConfigError, match="two or more"):
        NegativeSampler((5, 0), num_negatives=4, seed=0)
