"""The flags of every recipe are frozen: people script against them. The values behind them: test_recipe_configs.

A recipe may be added without a line here. A deliberate change, or to freeze what was added:
python tests/golden/test_flags.py, then commit flags.json with the reason.
"""

import contextlib
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.imagenet import all_recipes, parse_config

FROZEN = Path(__file__).with_name("flags.json")
PROGRAM = Path(__file__).resolve().parent.parent.parent / "launch" / "imagenet.py"
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_HELP_S = 2.0


def flags_of(recipe: str) -> list[str]:
    """Every flag that `RECIPE --help` names."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("COLUMNS", "200")  # no flag is cut at the end of a line
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            parse_config([recipe, "--help"])
    return sorted(set(_FLAG.findall(shown.getvalue())) - {"--help"})


def all_flags() -> dict[str, list[str]]:
    return {recipe: flags_of(recipe) for recipe in all_recipes()}


def frozen_flags() -> dict[str, list[str]]:
    """By recipe, those of every recipe added."""
    written = json.loads(FROZEN.read_text())
    return {recipe: written["every recipe"] + flags for recipe, flags in written["and"].items()}


def write_flags() -> None:
    now = all_flags()
    every = sorted(set.intersection(*map(set, now.values())))
    own = {recipe: [flag for flag in flags if flag not in every] for recipe, flags in now.items()}
    FROZEN.write_text(json.dumps({"every recipe": every, "and": own}, indent=1) + "\n")


def test_the_flags_are_those_that_people_script_against() -> None:
    frozen, now = frozen_flags(), all_flags()
    assert set(frozen) <= set(now), "a recipe went; see this file's docstring"
    for recipe, flags in frozen.items():
        lost, new = sorted(set(flags) - set(now[recipe])), sorted(set(now[recipe]) - set(flags))
        assert lost + new == [], (
            f"the flags of {recipe} have changed: lost {lost}, new {new}.\n"
            "Flags are an interface: scripts and saved command lines break when one goes or changes its name.\n"
            "If the change is meant: python tests/golden/test_flags.py, and commit flags.json with the reason."
        )


@pytest.mark.parametrize("arguments", [["--help"], ["kd_r34_r18", "--help"]])
def test_help_answers_at_once_and_imports_no_torch(arguments: list[str]) -> None:
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - begun)
        if seconds[-1] <= _HELP_S:
            break
    assert "kd_r34_r18" in done.stdout
    assert min(seconds) <= _HELP_S, f"--help took {seconds} s"
    script = f"import sys, runpy; sys.argv = {['imagenet.py', *arguments]!r}\n"
    script += f"try: runpy.run_path({str(PROGRAM)!r}, run_name='__main__')\n"
    script += "finally: print('TORCH' if 'torch' in sys.modules else 'NO TORCH', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "NO TORCH" in done.stderr


if __name__ == "__main__":
    write_flags()
