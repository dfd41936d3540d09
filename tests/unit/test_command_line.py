"""What launch/imagenet.py says of a command line that it does not take: short, with the nearest flag of this recipe."""

import re

import pytest

from launch.flags import flags_of
from launch.imagenet import all_recipes, parse_config
from pipeline.core.errors import ConfigError

_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


@pytest.mark.parametrize("recipe", list(all_recipes()))
def test_the_flags_that_are_suggested_are_those_that_are_taken(
    recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # no flag is cut at the end of a line
    with pytest.raises(SystemExit):
        parse_config([recipe, "--help"])
    _, _, options = capsys.readouterr().out.partition(" options ")  # above them stands torchrun's, in the example
    taken = {flag for flag in _FLAG.findall(options) if not flag.startswith(("--no-", "--help"))}
    assert set(flags_of(all_recipes()[recipe])) == taken


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("kd_r34_r18 --out r --epoch 5", r"kd_r34_r18 has no flag --epoch\. Did you mean --epochs\?"),
        ("kd_r34_r18 --out r --learning-rate 5", r"no flag --learning-rate\. Did you mean --lr\?"),
        ("kd_r34_r18 --out r --wd 5", r"no flag --wd\. Did you mean --weight-decay\?"),
        ("kd_r34_r18 --out r --batch_size=5", r"no flag --batch_size\. Did you mean --batch\?"),
        ("dkd_r34_r18 --out r --hidden 5", r"dkd_r34_r18 has no flag --hidden\.\n"),
        ("kd_r34_r18 --out r --xyzzy", r"no flag --xyzzy\.\n"),
        ("kd_r34_r18 --out r 5", "'5' belongs to no flag"),
    ],
)
def test_a_misspelt_flag_gets_the_nearest_of_its_recipe(line: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        parse_config(line.split())
    assert str(caught.value).endswith(f"`launch/imagenet.py {line.split()[0]} --help` lists its flags.")
    assert str(caught.value).count("\n") == 1


def test_labels_need_no_teacher() -> None:
    with pytest.raises(ConfigError, match="vanilla_r18 learns from labels alone: leave out --teacher"):
        parse_config(["vanilla_r18", "--teacher", "resnet34@IMAGENET1K_V1", "--out", "r"])


def test_the_recipe_comes_first() -> None:
    with pytest.raises(ConfigError, match=r"before its flags: launch/imagenet\.py kd_r34_r18 --out"):
        parse_config(["--out", "r", "kd_r34_r18"])


def test_either_dash_is_taken_and_numbers_may_be_negative() -> None:
    config = parse_config(["kd_r34_r18", "--out", "r", "--eval_batch", "7", "--lr", "-0.5"])
    assert (config.running.eval_batch, config.optimisation.lr) == (7, -0.5)
