"""The command line of precompute: what it takes, what it refuses, and how fast it answers."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import Reading
from pipeline.core.errors import ConfigError
from precompute.__main__ import parse_config
from precompute.config import Part, PlanConfig, PrecomputeConfig, check_config, parse_part, parse_views
from precompute.setting import check_names

FLAGS = {
    *("--teacher", "--store", "--data", "--train-dir", "--val-dir", "--index", "--val-index", "--beton", "--val-beton"),
    *("--views", "--keep", "--policy", "--plan-seed", "--resolution", "--mean", "--std", "--backend", "--precision"),
    *("--dali-decoder", "--dali-hw-decoder-load"),
    *("--batch", "--shard-rows", "--part", "--views-per-decode", "--expect-top1", "--compile", "--no-compile"),
    *("--threads", "--device", "--on-bad-image", "--synthetic-samples", "--synthetic-classes", "--dry-run"),
    *("--no-dry-run", "--help"),
}


def changed(job: PrecomputeConfig, field: str, value: object) -> PrecomputeConfig:
    """With another value in the field, of the job or of one of its groups."""
    if field in vars(job):
        return replace(job, **{field: value})
    ((name, group),) = [(name, group) for name, group in vars(job).items() if field in getattr(group, "__dict__", ())]
    return replace(job, **{name: replace(group, **{field: value})})


def test_views_are_a_slice() -> None:
    assert list(parse_views("3:6")) == [3, 4, 5]


@pytest.mark.parametrize("text", ["", "3", "3:3", "6:3", "-1:2", "a:b", "0:2:1", "0:999999999", " 0:2"])
def test_malformed_views_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--views is FIRST:END"):
        parse_views(text)


def test_parts_are_counted_from_one() -> None:
    assert parse_part("3/16") == Part(3, 16)
    assert Part(3, 16).folder_name == "part-3-of-16"


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "1/0", "-1/2", "1/2/3"])
def test_malformed_parts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--part is K/N"):
        parse_part(text)


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("batch", 0, "--batch"),
        ("shard_rows", -1, "--shard-rows"),
        ("resolution", 0, "--resolution"),
        ("views_per_decode", 0, "--views-per-decode"),
        ("threads", 0, "--threads"),
        ("plan_seed", -1, "--plan-seed"),
        ("std", (0.2, 0.0, 0.2), "--std"),
        ("std", (0.2, float("nan"), 0.2), "--std"),
        ("expect_top1", 101.0, "--expect-top1"),
    ],
)
def test_impossible_values_are_refused_by_flag(field: str, value: object, flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        check_config(changed(PrecomputeConfig(teacher="resnet18@random"), field, value))


def test_a_batch_need_not_divide_a_shard() -> None:
    check_config(PrecomputeConfig(teacher="resnet18@random", batch=100, shard_rows=256))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("backend", "dalii", "unknown backend 'dalii'. Did you mean 'dali'?"),
        ("teacher", "resnet34@IMAGENET1K_V7", "unknown weights of resnet34 'IMAGENET1K_V7'. Did you mean"),
        (
            "teacher",
            "demo_teacher@IMAGENET1K_V1",
            "demo_teacher has no published weights, so 'IMAGENET1K_V1' must be a file or 'random'",
        ),
        ("teacher", "resnet43@random", "unknown model 'resnet43'"),
        ("policy", "imagenet_trian", "Did you mean 'imagenet_train'?"),
        ("keep", "dense_f16,zip", "unknown codec 'zip'"),
        ("keep", "topk:0", "--keep: k must be 1 or more, and below the number of classes; got 'topk:0'"),
        ("keep", f"embedding_u8, topk:{10**12}", "--keep: k must be 1 or more"),
        ("beton", Path("x.beton"), "--beton is read by the ffcv backend, not by 'torchvision'"),
    ],
)
def test_unknown_names_are_refused_without_data(field: str, value: object, words: str) -> None:
    job = PrecomputeConfig("resnet18@random", reading=Reading("torchvision"))
    with pytest.raises(ConfigError) as refusal:
        check_names(changed(job, field, value))
    assert words in str(refusal.value)
    assert str(2**30) not in str(refusal.value), "nobody asked for so many classes"


def test_a_backend_that_is_not_installed_is_refused_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.backends.dali.DaliBackend.missing", lambda: "dali: pip install dali")
    with pytest.raises(ConfigError, match="pip install dali"):
        check_names(PrecomputeConfig("resnet18@random", reading=Reading("dali")))


@pytest.mark.parametrize("teacher", ["resnet18@IMAGENET1K_V1", "resnet50@IMAGENET1K_V2", "demo_teacher@random"])
def test_known_names_pass(teacher: str) -> None:
    check_names(PrecomputeConfig(teacher, keep="dense_f16,topk:20", reading=Reading("synthetic")))


def test_command_lines() -> None:
    job = parse_config(["--teacher", "resnet18@random", "--views", "0:50", "--std", "1", "1", "1"])
    assert isinstance(job, PrecomputeConfig)
    assert job.all_views == range(50)
    plan = parse_config(["plan", "--teacher", "resnet18@random", "--epochs", "30"])
    assert isinstance(plan, PlanConfig)
    assert (plan.epochs, plan.job.teacher) == (30, "resnet18@random")


@pytest.mark.parametrize("command", [[], ["plan"]])
def test_help_names_the_flags_without_torch(command: list[str]) -> None:
    script = (
        "import os, sys; os.environ['COLUMNS'] = '200'\n"
        "from precompute.__main__ import parse_config\n"
        f"try: parse_config({[*command, '--help']!r})\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", done.stdout))
    shown -= {"--nproc"} if command else {"--nproc", "--epochs", "--rows"}  # in the examples
    more = {"--epochs", "--probe-batches"} if command else set()
    assert shown == FLAGS | more, "flags are an interface: scripts break when one goes or changes its name"
