"""DALI proves itself in a process of its own: what may happen there, and what a job makes of it, with real children."""

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from store_files import manifest

from launch.imagenet import all_recipes
from pipeline.config import Files, Reading, RunConfig, Running, first_difference
from pipeline.core.errors import ConfigError
from pipeline.data import dali_proof
from pipeline.data.backend import DaliDecoding, choose_backend, missing
from pipeline.data.backends import dali
from pipeline.data.dali_decoder import choose_decoder
from pipeline.data.dali_proof import CHILD, prove, some_images
from pipeline.data.datasets import open_datasets
from pipeline.data.index import Index
from pipeline.data.scan import scan_folder
from pipeline.devices.world import World
from pipeline.engine.resolve import _as_begun
from precompute import audit, setting
from precompute.config import AuditConfig, PrecomputeConfig
from stores.index_file import create_store
from stores.records import PixelRecipe

needs_dali = pytest.mark.skipif(missing("dali") is not None, reason=str(missing("dali")))
CRASH = "the mixed decoder ended its process by SIGSEGV"


def prove_on_cpu(index: Index, child: Sequence[str] = CHILD, limit_s: float = 120.0) -> str | None:
    return prove(index, device="cpu", decoding=DaliDecoding("cpu"), num_threads=1, child=child, limit_s=limit_s)


def child_that(line: str) -> list[str]:
    """The real child, in which `line` is run when it asks DALI for pixels."""
    program = f"""
import os, runpy, signal, sys, time
from pipeline.data.backends import dali
real = dali.DaliBackend.stream
def stream(self, requests):
    {line}
    return real(self, requests)
dali.DaliBackend.stream = stream
runpy.run_module("pipeline.data.dali_proof", run_name="__main__", alter_sys=True)
"""
    return [sys.executable, "-c", program]


@needs_dali
def test_a_decoder_that_agrees_is_trusted_whatever_nobody_can_read(photo_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(photo_folder, tmp_path / "photos")
    index = scan_folder(tmp_path / "photos")[0]
    Path(index.path_of(int(some_images(index).ids[0]))).write_bytes(b"no image")
    assert prove_on_cpu(index) is None


@needs_dali
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "it ended its process by SIGSEGV"),
        ("raise RuntimeError('nvImageCodec failure: #8')", "it failed: RuntimeError: nvImageCodec failure: #8"),
    ],
)
def test_a_decoder_that_dies_or_fails_is_not(photo_index: Index, line: str, reason: str) -> None:
    assert prove_on_cpu(photo_index, child_that(line)) == reason


def test_a_decoder_that_hangs_is_killed(photo_index: Index) -> None:
    begun = time.monotonic()
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert prove_on_cpu(photo_index, sleeper, limit_s=1.0) == "it has not decoded a few images in 1 s"
    assert time.monotonic() - begun < 60


@needs_dali
def test_one_image_that_was_exchanged_is_noticed(photo_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(photo_folder, tmp_path / "photos")
    index = scan_folder(tmp_path / "photos")[0]
    changed = int(some_images(index).ids[5])
    # the child sees another picture of the same size and length under this name
    exchange = f"""
    from PIL import Image, ImageOps
    path = {index.path_of(changed)!r}
    length = os.path.getsize(path)
    ImageOps.invert(Image.open(path).convert('RGB')).save(path, 'JPEG', quality=60)
    assert os.path.getsize(path) <= length
    open(path, 'ab').write(bytes(length - os.path.getsize(path)))
"""
    said = prove_on_cpu(index, child_that(exchange.strip()))
    assert said is not None
    assert said.startswith("pixels differ")


def test_images_are_few_large_and_small_and_always_the_same(photo_index: Index) -> None:
    chosen = some_images(photo_index)
    assert len(chosen) <= 40
    assert {int(photo_index.sizes.argmin()), int(photo_index.sizes.argmax())} <= set(chosen.ids.tolist())
    np.testing.assert_array_equal(chosen.ids, some_images(photo_index).ids)
    assert len(some_images(photo_index.subset(np.arange(3)))) == 3


@dataclass(frozen=True)
class Ranks(World):
    """A world of several ranks, of which the others say what is given."""

    others: list[Any] = field(default_factory=list)

    def gather(self, value: Any) -> list[Any]:
        return [value, *self.others]


def on_cuda(*others: Any) -> World:
    return Ranks(0, 1 + len(others), torch.device("cuda", 0), 1, None, list(others))


def choose(asked: str, index: Index, world: World, said: str | None = None) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dali_proof, "prove", lambda *_, **__: said)
        return choose_decoder(Running(dali_decoder=asked), index, world)


def test_all_ranks_decode_alike_as_the_proofs_say(photo_index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    assert choose("auto", photo_index, on_cuda()) == "mixed"
    assert choose("mixed", photo_index, on_cuda(None)) == "mixed"
    assert choose("cpu", photo_index, on_cuda(), said=CRASH) == "cpu"
    assert capsys.readouterr().out == ""
    assert choose("auto", photo_index, on_cuda(), said=CRASH) == "cpu"
    assert choose("auto", photo_index, on_cuda(None, CRASH)) == "cpu", "another machine's crash is everybody's"
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("DALI decodes on the CPU, since its mixed decoder failed on a few images (rank 0: ")
    assert "(rank 2: " in second
    with pytest.raises(ConfigError, match=r"--dali-decoder mixed, asked .*\nrank 0: the mixed decoder ended"):
        choose("mixed", photo_index, on_cuda(), said=CRASH)


def test_one_rank_a_machine_proves(photo_index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose("auto", photo_index, on_cuda(), said=CRASH) == "mixed"


def test_without_a_device_the_cpu_decodes(photo_index: Index) -> None:
    world = World(0, 1, torch.device("cpu"), 1)
    assert choose("auto", photo_index, world) == choose("cpu", photo_index, world) == "cpu"
    with pytest.raises(ConfigError, match="this job runs on the CPU"):
        choose("mixed", photo_index, world)


def test_auto_takes_dali_on_cuda_only_in_a_proven_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_backend("auto", has_beton=False, on_cuda=True) == "torchvision"
    assert choose_backend("dali", has_beton=False, on_cuda=True) == "dali"
    assert choose_backend("auto", has_beton=True, on_cuda=True) == "ffcv"
    if missing("dali") is None:
        assert choose_backend("auto", has_beton=False) == "dali"
        monkeypatch.setattr(dali, "PROVEN_ON_CUDA", (dali._dali().__version__,))
        assert choose_backend("auto", has_beton=False, on_cuda=True) == "dali"


def config_of(**running: Any) -> RunConfig:
    config = all_recipes()["smoke"](Files(out=Path("run")))
    return replace(config, running=replace(config.running, **running))


def test_the_decoder_of_a_run_is_chosen_where_dali_reads(
    photo_folder: Path, val_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(out=tmp_path, train_dir=photo_folder, val_dir=val_folder)
    monkeypatch.setattr(dali_proof, "prove", lambda index, **_: proven.append(len(index)))
    proven: list[int] = []
    on_cpu = World(0, 1, torch.device("cpu"), 1)
    for backend, asked, world, decoder, count in (
        ("torchvision", "auto", on_cuda(), "auto", 0),
        ("dali", "auto", on_cpu, "cpu", 0),
        ("dali", "cpu", on_cuda(), "cpu", 0),
        ("dali", "auto", on_cuda(), "mixed", 1),
    ):
        config = replace(config_of(backend=backend, dali_decoder=asked), files=files)
        assert open_datasets(config, world).dali_decoder == decoder
        assert len(proven) == count
    assert proven == [72], "training images"


@pytest.mark.parametrize("decoder", ["cpu", "mixed"])
def test_a_run_keeps_backend_and_decoder(decoder: str) -> None:
    saved = config_of(backend="dali", dali_decoder=decoder, device="cuda")
    now = _as_begun(config_of(backend="auto"), saved, on_cuda())
    assert (now.running.backend, now.running.dali_decoder) == ("dali", decoder)
    asked = config_of(backend="torchvision", dali_decoder="cpu")
    assert _as_begun(asked, saved, on_cuda()) == asked, "what is named is named"
    synthetic = config_of(backend="synthetic", device="cuda")
    assert _as_begun(config_of(backend="auto"), synthetic, on_cuda()).running.backend == "auto"


def test_configurations_from_before_the_choice_go_on() -> None:
    for backend, device, decoder in (
        ("dali", "cuda", "mixed"),
        ("dali", "cpu", "cpu"),
        ("torchvision", "cuda", "auto"),
    ):
        written = config_of(backend=backend, device=device).to_json()
        del written["running"]["dali_decoder"], written["running"]["dali_hw_decoder_load"]
        saved = RunConfig.from_json(written)
        assert saved.running.dali_decoder == decoder
        now = config_of(backend=backend, device=device, dali_decoder=decoder)
        assert first_difference(saved, now) is None


def test_a_stores_recipe_says_how_dali_decoded() -> None:
    for decoding in (DaliDecoding("cpu"), DaliDecoding("mixed"), DaliDecoding("mixed", 0.65)):
        recipe = PixelRecipe.from_json({"backend": "dali", **decoding.to_recipe()})
        assert DaliDecoding.from_recipe(recipe) == decoding
    former = {"backend": "dali", "decode": "region, nvjpeg", "resize": "linear, antialias, uint8", "copy": None}
    assert DaliDecoding.from_recipe(PixelRecipe.from_json(former)) == DaliDecoding("mixed")
    assert DaliDecoding.from_recipe(PixelRecipe(backend="torchvision")) is None


def test_a_store_is_filled_on_with_the_decoder_that_began_it(tmp_path: Path) -> None:
    for decoding in (DaliDecoding("cpu"), DaliDecoding("mixed")):
        store = tmp_path / decoding.decoder
        recipe = PixelRecipe.from_json({"backend": "dali", **decoding.to_recipe()})
        create_store(store, replace(manifest("dense_f16"), pixel_recipe=recipe), None)
        config = PrecomputeConfig(teacher="demo_teacher@random", store=store)
        now = setting._as_begun(config, on_cuda())
        assert (now.reading.backend, now.reading.dali_decoder) == ("dali", decoding.decoder)
        named = replace(config, reading=Reading("torchvision", dali_decoder="cpu"))
        assert setting._as_begun(named, on_cuda()) == named
        assert setting._as_begun(config, World(0, 1, torch.device("cpu"), 1)) == config
    assert setting._as_begun(replace(config, store=tmp_path / "none"), on_cuda()).reading.backend == "auto"


def test_an_audit_decodes_as_the_store_was_where_it_can(photo_index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dali_proof, "prove", lambda *_, **__: None)
    recipe = PixelRecipe.from_json({"backend": "dali", **DaliDecoding("mixed", 0.5).to_recipe()})
    stored, settings = replace(manifest("dense_f16"), pixel_recipe=recipe), AuditConfig("demo_teacher@random")
    assert audit._decoding(settings, stored, photo_index, on_cuda()) == DaliDecoding("mixed", 0.5)
    assert audit._decoding(replace(settings, dali_decoder="cpu"), stored, photo_index, on_cuda()).decoder == "cpu"
    assert audit._decoding(settings, stored, photo_index, World(0, 1, torch.device("cpu"), 1)).decoder == "cpu"
    others = replace(stored, pixel_recipe=PixelRecipe(backend="torchvision"))
    assert audit._decoding(settings, others, photo_index, on_cuda()) == DaliDecoding("cpu")
