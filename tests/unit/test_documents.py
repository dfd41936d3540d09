"""What README and docs/ tell is true: commands parse; flags, files and links exist; figures are the measured ones."""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from documents import DOCUMENTS, HOUSE, PAGES, README, TOUR, blocks_of, commands_of, program_and_arguments, prose_of

import benchmarks.__main__ as measuring
import launch.prepare as preparing
import precompute.__main__ as filling
import stores.__main__ as storing
from launch import imagenet
from pipeline.core.errors import ConfigError
from pipeline.methods import __main__ as methods

MOST_WORDS, LONGEST_LINE = 1500, 150
PACKAGES = ("pipeline", "stores", "precompute", "launch", "benchmarks", "tests", "tools", "docs")
NOT_OURS = {"--nproc_per_node", "--no-build-isolation"}  # torchrun's and pip's
NO_FLAG = "-Z"  # of no program: one that has to be told to do nothing stops there
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]+")
MADE_BY_THE_READER = {f"pipeline/{folder}/{name}.py" for folder in ("losses", "methods") for name in ("cosine", "hint")}
Parse = Callable[[list[str]], object]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(HOUSE)) for path in paths]


def unrun(main: Callable[[], None]) -> Parse:
    """Reads a command line as `main` does, which then ends because of a flag that no program has."""

    def parse(arguments: list[str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["program", *arguments, *([] if "--help" in arguments else [NO_FLAG])])
            main()

    return parse


def check_make(arguments: list[str]) -> None:
    targets = re.findall(r"^(\w+):", (HOUSE / "Makefile").read_text(), re.MULTILINE)
    assert [word for word in arguments if word not in targets and not re.match(r"[A-Z]+=", word)] == []


def check_apt_get(arguments: list[str]) -> None:
    setup = (HOUSE / "tools" / "setup.sh").read_text()
    assert [word for word in arguments if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", setup)] == []


def check_pip(arguments: list[str]) -> None:
    extras = re.findall(r"^(\w+) = \[", (HOUSE / "pyproject.toml").read_text(), re.MULTILINE)
    named = [word.strip(".[]") for argument in arguments[1:] if argument[0] != "-" for word in argument.split(",")]
    assert [name for name in named if name not in extras] == []


PROGRAMS: dict[str, Parse] = {
    "launch/imagenet.py": imagenet.parse_config,
    "launch/slurm.sbatch": imagenet.parse_config,  # these two hand on what they are given
    "launch/two_nodes.sh": imagenet.parse_config,
    "launch/prepare.py": unrun(preparing.main),
    "-m precompute": filling.parse_config,
    "-m stores": unrun(storing.main),
    "-m benchmarks": unrun(measuring.main),
    "-m pipeline.methods": unrun(methods.main),
    "make": check_make,
    "apt-get": check_apt_get,
    "pip": check_pip,
}
WITHOUT_HELP = ("make", "apt-get", "pip")


def said(parse: Parse, arguments: Sequence[str]) -> tuple[int, str]:
    """A program's exit code (0 where it goes on), and what it printed."""
    text = StringIO()
    with redirect_stdout(text), redirect_stderr(text):
        try:
            parse(list(arguments))
        except SystemExit as end:
            return int(end.code or 0), text.getvalue()
        except ConfigError as error:
            return error.exit_code, str(error)
    return 0, text.getvalue()


def refusal(parse: Parse, arguments: Sequence[str]) -> str:
    """What a program says against a command line; "" where it takes it, or is asked for help."""
    code, text = said(parse, arguments)
    return "" if code == 0 or re.search(rf"nrecognized (options|arguments): {NO_FLAG}\s", text) else text


@pytest.mark.parametrize("document", names(DOCUMENTS))
def test_every_command_is_one_that_its_program_takes(document: str) -> None:
    for line in commands_of(HOUSE / document):
        program, arguments = program_and_arguments(line)
        assert program in PROGRAMS, f"{line}: add the program to PROGRAMS, so that its lines are checked"
        assert refusal(PROGRAMS[program], arguments) == "", line


def test_a_line_that_no_program_takes_is_found() -> None:
    for line in (
        "python launch/prepare.py index --data DIR --worse",
        "python launch/prepare.py index --data DIR --bad maybe",
        "python -m stores shaw STORE",
        "python -m stores show",
        "python -m benchmarks loader",
        "python -m benchmarks loder --data DIR",
        "python -m pipeline.methods --markup",
        "python -m precompute --data DIR --stare STORE --teacher NAME@WEIGHTS",
        "torchrun --nproc_per_node=8 -m precompute --data DIR",
    ):
        program, arguments = program_and_arguments(line)
        assert refusal(PROGRAMS[program], arguments) != "", line


@pytest.fixture(scope="module")
def known_flags() -> set[str]:
    """Every flag of every recipe, and of the programs and subcommands that some document shows."""
    flags = set(FLAG.findall((HOUSE / "tests" / "golden" / "flags.json").read_text()))
    shown = {program_and_arguments(line) for document in DOCUMENTS for line in commands_of(document)}
    helps = {(program, arguments[:1]) for program, arguments in shown if program not in WITHOUT_HELP}
    for program, first in helps:
        words = [word for word in first if not word.startswith("-")]
        flags |= set(FLAG.findall(said(PROGRAMS[program], [*words, "--help"])[1]))
    return flags


@pytest.mark.parametrize("document", names(DOCUMENTS))
def test_programs_and_flags_in_the_text_exist(document: str, known_flags: set[str]) -> None:
    for code in re.findall(r"`([^`\n]+)`", prose_of(HOUSE / document)):
        program, arguments = program_and_arguments(code) if re.match(r"[\w./-]", code) else ("", [])
        if program in PROGRAMS:
            words = [word.replace("RECIPE", "kd_r34_r18") for word in arguments if word != "--help"]
            asked = [] if program in WITHOUT_HELP else ["--help"]
            assert refusal(PROGRAMS[program], [*words, *asked]) == "", code
        flags = {flag.replace("--no-", "--") for flag in FLAG.findall(code)} - NOT_OURS
        assert flags <= known_flags, code


@pytest.mark.parametrize("document", names(DOCUMENTS))
def test_files_and_links_exist(document: str) -> None:
    text = (HOUSE / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert target.startswith("http") or (HOUSE / document).parent.joinpath(target).exists(), target
    for path in re.findall(rf"`((?:{'|'.join(PACKAGES)})/[\w./-]*)", text):
        assert (HOUSE / path).exists() or path in MADE_BY_THE_READER, path


def test_readme_is_short_and_leads_to_every_page() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.split()) <= MOST_WORDS
    linked = set(re.findall(r"\]\((docs/[\w.]+)\)", text))
    assert linked == set(names(PAGES))


@pytest.mark.parametrize("document", names([README, *PAGES]))
def test_lines_are_short_outside_tables_and_every_block_has_a_language(document: str) -> None:
    lines = [line for line in prose_of(HOUSE / document).splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > LONGEST_LINE] == []
    assert [line for line in lines if line.count("`") % 2] == []  # code that is cut by a line's end is not checked
    assert {block.language for block in blocks_of(HOUSE / document)} <= {"sh", "text", "python"}


def test_python_stands_only_where_a_test_runs_it() -> None:
    # by test_readme_parts, test_tour, test_stores_readme
    run = {README, HOUSE / "docs" / "parts.md", TOUR, HOUSE / "stores" / "README.md"}
    assert {page for page in DOCUMENTS for block in blocks_of(page) if block.language == "python"} == run


def test_the_tree_has_every_room() -> None:
    (tree,) = (block.text for block in blocks_of(README) if block.text.startswith("pipeline/"))
    rooms = [path.parent.name for path in HOUSE.glob("pipeline/*/__init__.py")]
    assert [room for room in rooms if not re.search(rf"\b{room}/", tree)] == []


def results(name: str) -> Any:
    return json.loads((HOUSE / "benchmarks" / "results" / f"{name}.json").read_text())


def ratio(pairs: list[dict[str, Any]], name: str) -> float:
    (found,) = (one["ratio"] for one in pairs if one["name"] == name)
    return found


def median(pairs: list[dict[str, Any]], name: str) -> float:
    (found,) = (one["median_a"] for one in pairs if one["name"] == name)
    return found


def measured() -> dict[str, list[str]]:
    """Sentences of the two tables of figures, by document, made from the results that lie beside the benchmarks."""
    epoch, store, fill = results("epoch-2-cores"), results("store-2-cores"), results("precompute-2-cores")
    loader, kd = results("loader-2-cores"), results("step-2-cores")["methods"][0]
    stored, online = ratio(epoch["pairs"], "stored / vanilla"), ratio(epoch["pairs"], "online / vanilla")
    cold, warm = (round(epoch["delivery"][cache], -3) for cache in ("cold", "warm"))
    h5py, opened, metadata = ratio(store["warm"], "mmap / h5py"), store["open"], loader["metadata"]
    filled, cut = ratio(fill["against_loader"], "torchvision"), ratio(fill["pairs"], "torchvision")
    first, pairs = metadata["first_batch_s"], loader["pairs"]
    fastest = max(one["median_a"] for one in pairs)
    return {
        "README.md": [
            f"with a stored teacher takes {stored:.2f} x a plain one; with the teacher online {online:.2f} x",
            f"{cold:,.0f} stored rows a second reach the training step, from a cold cache too",
            f"the fastest loader brings {fastest:,.0f} images",
            f"Random rows come {h5py:.1f} x as fast as through h5py's own indexing",
            f"Filling a store runs at {filled:.2f} x the speed of loading its images",
            f"Eight views cut from one decoded image come {cut:.1f} x as fast as eight passes",
            f"{ratio(pairs, 'dali'):.2f} x as fast as DALI's own random crops of JPEGs",
            f"{ratio(pairs, 'ffcv-jpeg'):.2f} x as fast as FFCV's",
            f"an epoch takes {metadata['order_s']:.2f} s, and a rank has its first batch after {first:.1f} s",
        ],
        "docs/benchmarks.md": [
            f"with a stored teacher | takes {stored:.2f} x as long",
            f"online | takes {online:.2f} x as long",
            f"runs at {kd['ratio']:.2f} x the speed of a supervised one",
            f"its loss is {100 * kd['share']:.2f} % of the step",
            f"cold page cache | {cold:,.0f} rows/s",
            f"warm | {warm:,.0f} rows/s",
            f"h5py's own indexing | {h5py:.1f} x as fast",
            f"`np.memmap` | {ratio(store['warm'], 'mmap / np.memmap'):.2f} x as fast",
            f"checksums compared | {median(store['warm'], 'mmap, checked / np.memmap') / 1e6:.1f} million rows/s",
            f"of {opened['views']} ImageNet views | {opened['mmap_open_s']:.2f} s",
            f"{opened['mmap_all_views_read_mb']:.0f} MB by memory map",
            f"{opened['pread_all_views_read_mb']:.0f} MB by pread",
            f"pwrite and fsync | {ratio(store['write'], 'writer / pwrite + fsync'):.2f} x as fast",
            f"its loader alone | {filled:.2f} x as fast",
            f"by torchvision | {cut:.1f} x as fast",
            f"by FFCV from JPEG | {ratio(fill['pairs'], 'ffcv-jpeg'):.1f} x as fast",
            *(
                f"{text} | {ratio(pairs, name):.2f} x as fast, {median(pairs, name):,.0f} images/s"
                for text, name in (
                    ("by DALI, against its own random crops", "dali"),
                    ("FFCV from raw pixels, against its own", "ffcv-raw"),
                    ("FFCV from JPEG, against its own", "ffcv-jpeg"),
                    ("against ImageFolder and DataLoader", "torchvision"),
                )
            ),
            f"of ImageNet's {metadata['samples']:,} samples | {metadata['order_s']:.2f} s",
            f"The plan of a sample | {metadata['plan_us_per_sample']:.1f} us",
            f"first batch of ImageNet | {first:.1f} s",
            f"metadata of ImageNet | {metadata['metadata_mb']:.0f} MB",
        ],
    }


def test_launches_are_those_of_the_golden_table() -> None:
    golden = json.loads((HOUSE / "tests" / "null_device" / "golden.json").read_text())
    newest = golden[max(golden, key=lambda version: [int(number) for number in version.split(".")])]
    text = (HOUSE / "docs" / "gpus.md").read_text(encoding="utf-8")
    for step, recipe in (("labels alone", "vanilla_r18"), ("KD", "kd_r34_r18"), ("CRD", "crd_r34_r18")):
        assert f"| {step} | {newest[recipe]['operations']} |" in text


@pytest.mark.parametrize("document", ["README.md", "docs/benchmarks.md"])
def test_figures_are_the_measured_ones(document: str) -> None:
    text = (HOUSE / document).read_text(encoding="utf-8")
    assert [sentence for sentence in measured()[document] if sentence not in text] == []
    machines = [
        results(name)["machine"] for name in ("epoch-2-cores", "store-2-cores", "loader-2-cores", "step-2-cores")
    ]
    assert {f"{machine['usable_cpus']} cores ({machine['cpu']})" in text for machine in machines} == {True}
