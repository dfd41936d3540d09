"""Store, network or both: what is decided before a run starts, and what is refused with both sides shown."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from store_files import CLASSES, NUM, POLICY, SEED, fill, made_index

from pipeline.config import Files, Optimisation, RunConfig, Teaching, Views
from pipeline.core.errors import ConfigError, StoreError
from pipeline.data.backends.synthetic import synthetic_index
from pipeline.data.index import Index
from pipeline.data.policy import get_policy
from pipeline.devices.world import World
from pipeline.losses._shared.registry import loss_record
from pipeline.teachers.choice import TeacherChoice, choose_teacher

WORLD = World(0, 1, torch.device("cpu"), 1)
INDEX = made_index()


def config(store: Path | None, source: Any = "auto", *, temperature: float = 4.0, **views: Any) -> RunConfig:
    return RunConfig(
        recipe="test",
        student="demo_student",
        teacher="resnet34@IMAGENET1K_V1",
        method="kd",
        files=Files(out=Path("run"), store=store),
        method_args={"temperature": temperature},
        views=Views(**{"policy": POLICY, "plan_seed": SEED, **views}),
        teaching=Teaching(teacher_source=source),
        optimisation=Optimisation(epochs=6),
    )


def choose(
    config: RunConfig, saved: RunConfig | None = None, index: Index = INDEX, world: World = WORLD
) -> TeacherChoice:
    loss, policy = loss_record(config.method, config.method_args), get_policy(config.views.policy)
    return choose_teacher(config, loss, policy, saved, index, world)


def test_without_a_store_the_teacher_runs_online() -> None:
    choice = choose(config(None))
    assert (choice.source, choice.teacher, choice.num_views) == ("online", "resnet34@IMAGENET1K_V1", None)


def test_auto_takes_a_store_that_holds_everything_and_says_so(tmp_path: Path) -> None:
    fill(tmp_path, "dense_f16").close()
    choice = choose(config(tmp_path))
    assert (choice.source, choice.teacher, choice.num_views) == ("stored", "demo_teacher@random", 2)
    assert choice.stored is not None
    assert choice.stored.fields == ("logits",)
    said = "\n".join(choice.notes)
    assert "views 0-1" in said
    (warning,) = choice.warnings
    assert "--teacher resnet34@IMAGENET1K_V1 is not run" in warning


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("plan seed", {"plan_seed": SEED + 1}),
        ("policy", {"policy": "demo_train"}),
    ],
)
@pytest.mark.parametrize("source", ["auto", "stored", "hybrid"])
def test_a_store_of_other_views_is_refused_with_both_values(
    what: str, changed: dict[str, Any], source: str, tmp_path: Path
) -> None:
    fill(tmp_path, "dense_f16").close()
    with pytest.raises(StoreError, match=rf"(?s){what} is another one.*store: .*run: "):
        choose(config(tmp_path, source, **changed))


def test_a_store_of_other_data_or_classes_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "dense_f16").close()
    with pytest.raises(StoreError, match="index fingerprint"):
        choose(config(tmp_path), index=synthetic_index(NUM + 1, CLASSES))
    renamed = replace(INDEX, classes=(*INDEX.classes[:-1], "zebra"))
    with pytest.raises(StoreError, match=r"(?s)classes is another.*class_00006.*zebra"):
        choose(config(tmp_path), index=renamed)


def test_a_subset_reads_its_parents_store(tmp_path: Path) -> None:
    fill(tmp_path, "dense_f16").close()
    assert choose(config(tmp_path, "stored"), index=INDEX.subset(INDEX.ids[::3])).source == "stored"


def test_topk_serves_temperature_one_only(tmp_path: Path) -> None:
    fill(tmp_path, "topk:3").close()
    assert choose(config(tmp_path, "stored", temperature=1.0)).source == "stored"
    with pytest.raises(ConfigError, match="temperature 4"):
        choose(config(tmp_path, "stored"))
    fallen_back = choose(config(tmp_path))
    assert fallen_back.source == "online"
    assert "temperature 4" in fallen_back.warnings[0]


def test_a_store_that_does_not_serve_is_named_with_the_reason_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, "dense_f16").close()
    srrl = replace(config(tmp_path), method="srrl", method_args={})
    choice = choose(replace(srrl, teacher="demo_teacher@random"))
    said = capsys.readouterr().out
    assert choice.source == "online"
    assert said.startswith(
        f"warning: the store {tmp_path} is not read, and the teacher demo_teacher@random runs online"
    )
    assert "needs the teacher's embedding (precompute --keep embedding_f16), and the store keeps dense_f16" in said
    assert said.count("warning") == 1, "its teacher is the store's"
    choose(srrl)
    said = capsys.readouterr().out
    assert "is not the store's.\n  store:  demo_teacher@random\n  online: resnet34@IMAGENET1K_V1\n" in said
    assert "Give --teacher demo_teacher@random" in said


def test_one_line_says_that_an_online_teacher_leaves_the_store_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, "dense_f16").close()
    asked = config(tmp_path, "online")
    assert choose(asked).source == "online"
    assert capsys.readouterr().out.splitlines() == [
        f"--store {tmp_path} is not read (--teacher-source online):"
        " the teacher resnet34@IMAGENET1K_V1 runs on every batch"
    ]
    assert choose(config(tmp_path), saved=asked).source == "online"
    assert "(this run began with its teacher online)" in capsys.readouterr().out
    choose(config(None, "online"))
    assert capsys.readouterr().out == ""


def test_one_rank_speaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choose(config(tmp_path, "online"), world=World(1, 2, torch.device("cpu"), 1))
    assert capsys.readouterr().out == ""


def test_embeddings_give_logits_through_the_head(tmp_path: Path) -> None:
    fill(tmp_path, "embedding_u8").close()
    choice = choose(config(tmp_path, "stored"))
    assert choice.stored is not None
    assert choice.stored.logits_codec is None
    assert choice.stored.head is not None


def test_exact_logits_are_preferred(tmp_path: Path) -> None:
    fill(tmp_path, "embedding_f16,topk:3,dense_f16").close()
    choice = choose(config(tmp_path, "stored"))
    assert choice.stored is not None
    assert choice.stored.fields == ("logits",)


def test_a_view_that_is_not_complete_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "dense_f16", views=(0, 2)).close()
    assert choose(config(tmp_path)).num_views == 1
    with pytest.raises(ConfigError, match=r"view 1 is not complete .*complete: 0, 2"):
        choose(config(tmp_path, "stored", num_views=3))
    assert choose(config(tmp_path, num_views=3)).source == "online"
    hybrid = choose(config(tmp_path, "hybrid"))
    assert hybrid.stored is not None
    assert (hybrid.stored.views, hybrid.num_views, hybrid.teacher) == ({0, 2}, None, "resnet34@IMAGENET1K_V1")


def test_a_restart_keeps_source_and_views_though_the_store_has_grown(tmp_path: Path) -> None:
    fill(tmp_path, "dense_f16").close()
    first = choose(config(tmp_path))
    saved = config(tmp_path)
    saved = replace(
        saved,
        views=replace(saved.views, num_views=first.num_views),
        teaching=replace(saved.teaching, teacher_source="stored"),
    )
    fill(tmp_path, "dense_f16", views=(2,)).close()
    assert choose(config(tmp_path), saved).num_views == 2


def test_a_shard_of_another_store_is_found_before_training(tmp_path: Path) -> None:
    fill(tmp_path / "a", "dense_f16").close()
    fill(tmp_path / "b", "affine_u8").close()
    name = "views/0001/rows-0000040-0000080.h5"
    (tmp_path / "a" / name).unlink()
    (tmp_path / "b" / name).rename(tmp_path / "a" / name)
    with pytest.raises(StoreError, match=r"rows-0000040-0000080\.h5"):
        choose(config(tmp_path / "a"))


def test_what_is_no_store_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        choose(config(tmp_path / "nothing"))


def test_a_store_of_embeddings_without_its_classifier_has_no_logits(tmp_path: Path) -> None:
    fill(tmp_path, "embedding_f16").close()
    head = tmp_path / "head.h5"
    kept = head.read_bytes()
    head.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(StoreError, match=r"head\.h5"):
        choose(config(tmp_path, "stored"))
    head.unlink()
    with pytest.raises((ConfigError, StoreError), match=r"head\.h5"):
        choose(config(tmp_path, "stored"))
