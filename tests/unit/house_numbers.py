"""The house's numbers: how much Python there is outside tests, and in what pieces.

A function's length is its lines from `def` to its last, docstring included, decorators not; a nested function counts
in the one around it and once more by itself. An argument is typed where it has an annotation; `self`, `cls` and those
of lambdas need none, and Triton's kernels are in a language without them.
"""

import ast
import io
import statistics
import tokenize
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("pipeline", "precompute", "stores", "launch", "benchmarks")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """A file of Python outside tests.

    Attributes:
        path: relative to the repository.
        text: its text.
        tree: its syntax.
    """

    path: Path
    text: str
    tree: ast.Module

    @property
    def num_lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def functions(self) -> list[_Function]:
        """Methods and nested functions among them."""
        return [node for node in ast.walk(self.tree) if isinstance(node, _Function)]


@dataclass(frozen=True)
class Numbers:
    """What is measured of a whole tree."""

    lines: int
    without_docstrings: int
    lines_of_code: int
    files: int
    largest: tuple[int, Path]
    median: float
    p99: int
    longest: list[tuple[int, str]]
    untyped: list[str]
    typed_share: float
    type_ignores: int

    def table(self) -> str:
        """A line to each number."""
        rows = {
            "lines of Python outside tests": f"{self.lines:,}",
            "without docstrings": f"{self.without_docstrings:,}",
            "without docstrings, comments and blank lines": f"{self.lines_of_code:,}",
            "files": f"{self.files}",
            "largest file": f"{self.largest[0]} ({self.largest[1]})",
            "function, median": f"{self.median:g}",
            "function, 99th percentile": f"{self.p99}",
            "longest functions": ", ".join(f"{length} {name}" for length, name in self.longest[:5]),
            "typed arguments outside Triton": f"{100 * self.typed_share:.2f} %",
            "type: ignore": f"{self.type_ignores}",
        }
        return "\n".join(f"{name:54} {value}" for name, value in rows.items())


def sources(root: Path = REPOSITORY) -> list[Source]:
    """Every file of the program's packages, by path."""
    paths = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    return [Source(p.relative_to(root), text, ast.parse(text)) for p, text in zip(paths, texts, strict=True)]


def measure(files: list[Source]) -> Numbers:
    """The numbers of these files."""
    functions = [(source, function) for source in files for function in source.functions]
    lengths = sorted(length_of(function) for _, function in functions)
    by_length = sorted(((length_of(f), f"{s.path}:{f.name}") for s, f in functions), reverse=True)
    typed = [
        (argument.annotation is not None, f"{source.path}:{function.name}({argument.arg})")
        for source, function in functions
        if "triton" not in source.path.name
        for argument in arguments_of(function)
    ]
    return Numbers(
        lines=sum(source.num_lines for source in files),
        without_docstrings=sum(source.num_lines - len(docstring_lines(source)) for source in files),
        lines_of_code=sum(len(lines_of_code(source)) for source in files),
        files=len(files),
        largest=max((source.num_lines, source.path) for source in files),
        median=statistics.median(lengths),
        p99=lengths[int(0.99 * (len(lengths) - 1))],
        longest=by_length,
        untyped=[name for is_typed, name in typed if not is_typed],
        typed_share=sum(is_typed for is_typed, _ in typed) / len(typed),
        type_ignores=sum(source.text.count("# type: ignore") for source in files),
    )


def length_of(function: _Function) -> int:
    """See the module's docstring."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def arguments_of(function: _Function) -> list[ast.arg]:
    """All but `self` and `cls`."""
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [argument for argument in every if argument is not None and argument.arg not in ("self", "cls")]


def docstring_lines(source: Source) -> set[int]:
    """The numbers of the lines that docstrings take."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    firsts = [node.body[0] for node in ast.walk(source.tree) if isinstance(node, documented) and node.body]
    found: set[int] = set()
    for first in firsts:
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            found.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return found


def lines_of_code(source: Source) -> set[int]:
    """The numbers of the lines that hold something else than docstrings, comments and nothing."""
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(source.text).readline)
    lines = {line for t in tokens if t.type not in skipped for line in range(t.start[0], t.end[0] + 1)}
    return lines - docstring_lines(source)


def calls(source: Source, names: Collection[str]) -> Iterator[tuple[int, str]]:
    """(line, name) for every call of one of `names`, whatever stands before its last dot."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and _called(node) in names:
            yield node.lineno, _called(node)


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""
