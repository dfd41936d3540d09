"""The house keeps its measures. `python tests/unit/test_house.py [CHECKOUT]` prints them.

That stores, the ground, records, configurations, order and plan import no torch is import-linter's contract; the
commands' own tests hold it where programs start.
"""

import sys
import textwrap
from pathlib import Path

import pytest
from house_numbers import REPOSITORY, Numbers, Source, calls, length_of, measure, sources

MAX_FILE, MAX_MEDIAN, MAX_P99, MAX_TYPE_IGNORES = 400, 7, 40, 19

# what makes an object of a name that a person or a configuration gives
NAME_PARSERS = {
    *("build_method", "loss_record", "method_of"),
    *("get_policy", "choose_backend", "check_backend"),
    *("parse_spec", "resolve_model"),
}
# where that is done: once for a run and once for a filling, and where a record that was written is read again
RESOLVERS = {
    "pipeline/config.py": "what a saved configuration means",
    "pipeline/engine/resolve.py": "from configuration to objects",
    "pipeline/data/datasets.py": "a backend for what data there is; resolve calls it",
    "pipeline/teachers/": "a store's record",
    "precompute/setting.py": "from flags to objects",
    "precompute/audit.py": "from flags to objects, and a store's record",
}
# where parts are found, parts that are built of other parts, and constants of the program itself
OTHERS = {
    "pipeline/methods/": "methods around methods, and `python -m pipeline.methods`, which lists them",
    "pipeline/losses/": "records of methods around methods",
    "pipeline/models/spec.py": "where models are found",
    "pipeline/data/backend": "where backends are found",
    "pipeline/data/polic": "where policies are found",
    "pipeline/data/dali_proof.py": "the fixed policy of the proof",
    "precompute/probe.py": "the fixed policy of evaluation",
}


@pytest.fixture(scope="module")
def files() -> list[Source]:
    return sources()


@pytest.fixture(scope="module")
def numbers(files: list[Source]) -> Numbers:
    return measure(files)


def test_no_file_is_too_long(files: list[Source]) -> None:
    found = {str(source.path): source.num_lines for source in files if source.num_lines > MAX_FILE}
    assert not found, f"files of more than {MAX_FILE} lines: cut them where their subject changes"


def test_functions_are_short(numbers: Numbers) -> None:
    assert numbers.median <= MAX_MEDIAN, f"\n{numbers.table()}"
    assert numbers.p99 <= MAX_P99, f"\n{numbers.table()}"


def test_every_argument_has_a_type(numbers: Numbers) -> None:
    assert numbers.untyped == []


def test_types_are_rarely_waived(numbers: Numbers) -> None:
    assert numbers.type_ignores <= MAX_TYPE_IGNORES, f"\n{numbers.table()}"


def test_names_are_resolved_once(files: list[Source]) -> None:
    """Below the resolvers, parts are objects: a name that is parsed twice can mean two things."""
    found = [
        f"{source.path}:{line} calls {name}"
        for source in files
        if str(source.path).startswith(("pipeline/", "precompute/", "stores/"))
        and not str(source.path).startswith((*RESOLVERS, *OTHERS))
        for line, name in calls(source, NAME_PARSERS)
    ]
    assert not found, (
        "take the object from where the name was resolved, or add the file to a list above with its reason"
    )


def test_the_measures_are_what_they_say(tmp_path: Path) -> None:
    for package in ("pipeline", "precompute", "stores", "launch", "benchmarks"):
        (tmp_path / package).mkdir()
    text = """
        '''Two.

        Lines.'''

        X = 1  # one

        def f(self, a, *b: int):
            '''One.'''
            def g(): X.h()
            return g
        """
    text = textwrap.dedent(text).lstrip()
    (tmp_path / "stores" / "a.py").write_text(text)
    (source,) = sources(tmp_path)
    found = measure([source])
    assert [length_of(function) for function in source.functions] == [4, 1]
    assert (found.lines, found.without_docstrings, found.lines_of_code) == (10, 6, 4)
    assert (found.untyped, found.typed_share) == (["stores/a.py:f(a)"], 0.5)
    assert list(calls(source, {"f", "h"})) == [(9, "h")]


if __name__ == "__main__":
    print(measure(sources(Path(sys.argv[1]).resolve() if sys.argv[1:] else REPOSITORY)).table())
