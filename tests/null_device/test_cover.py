"""Whether few configurations hold every pair of settings."""

from null_device import cover
from null_device.cases import METHODS, codec_of, factors, is_allowed, pairwise_cases
from pipeline.methods._shared.registry import method_names
from stores.codec_registry import codec_ids


def test_every_allowed_pair_is_in_a_row() -> None:
    choices = factors()
    rows = cover.pairwise(choices, is_allowed)
    covered = {pair for row in rows for pair in cover.pairs_in(row)}
    wanted = {
        frozenset({(first, one), (second, other)})
        for first in choices
        for second in choices
        if first < second
        for one in choices[first]
        for other in choices[second]
        if is_allowed({first: one, second: other})
    }
    assert covered == wanted


def test_rows_are_allowed_and_few() -> None:
    rows = cover.pairwise(factors(), is_allowed)
    assert all(map(is_allowed, rows))
    assert len(rows) <= 1.5 * len(METHODS) * 3  # methods and precisions, the two longest lists, must all meet


def test_the_same_rows_at_every_call() -> None:
    assert pairwise_cases() == pairwise_cases()


def test_every_method_of_the_registry_is_run() -> None:
    assert {METHODS[case.method].method for case in pairwise_cases()} == set(method_names())


def test_every_codec_is_read() -> None:
    assert {codec_of(case) for case in pairwise_cases() if case.teacher == "stored"} == set(codec_ids())


def test_a_small_cover_by_hand() -> None:
    rows = cover.pairwise({"a": [0, 1], "b": [0, 1], "c": [0, 1]}, lambda row: not (row.get("a") and row.get("b")))
    assert {(row["a"], row["b"]) for row in rows} == {(0, 0), (0, 1), (1, 0)}
    assert {(row["b"], row["c"]) for row in rows} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_the_full_product_leaves_out_what_is_not_allowed() -> None:
    assert len(cover.full({"a": [0, 1], "b": [0, 1]}, lambda row: not (row.get("a") and row.get("b")))) == 3
