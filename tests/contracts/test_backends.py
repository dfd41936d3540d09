"""Every backend of the registry keeps the backend contract."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from backend_contract import BackendContract

from pipeline.core import parts
from pipeline.core.errors import ConfigError
from pipeline.data import backends
from pipeline.data.backend import BackendOptions, Source, open_backend, resolve_backend
from pipeline.data.backends.synthetic import synthetic_index
from pipeline.data.beton import open_beton, read_beton_index
from pipeline.data.beton_writer import write_beton
from pipeline.data.index import Index
from pipeline.data.plan import Plan
from pipeline.data.policy import get_policy


class TestTorchvision(BackendContract):
    """The reference."""

    backend = "torchvision"
    shares_decode = True


class TestDali(BackendContract):
    """DALI on the CPU."""

    backend = "dali"


class TestFfcvRaw(BackendContract):
    """Uncompressed copies: there is nothing that could fail to decode."""

    backend = "ffcv"
    damages = ()
    encoding = "raw"

    @classmethod
    def make_source(cls, index: Index, tmp_path: Path) -> Source:
        path = tmp_path / f"{cls.encoding}.beton"
        write_beton(index, path, encoding=cls.encoding, max_side=160)
        return Source(read_beton_index(path), path)


class TestFfcvJpeg(TestFfcvRaw):
    """JPEG copies, some of them the originals."""

    damages = ("zeros", "text")
    encoding = "jpeg"
    shares_decode = True

    @classmethod
    def damage(cls, source: Source, sample_id: int, kind: str) -> None:
        beton = open_beton(source.beton)
        with source.beton.open("r+b") as file:
            file.seek(int(beton.offsets[sample_id]))
            file.write({"zeros": b"\0", "text": b"x"}[kind] * int(beton.sizes[sample_id]))


class TestSynthetic(BackendContract):
    """Ramps; no file to damage."""

    backend = "synthetic"
    damages = ()


def test_every_backend_is_held_to_the_contract() -> None:
    held = {contract.backend for contract in BackendContract.__subclasses__()}
    assert held == set(parts.names(backends)), "write a subclass of BackendContract here for each backend"


PLAIN_GRAY = """
import torch

from pipeline.data.backend import Backend, Pixels


class PlainGray(Backend):
    reads = "files"

    def __init__(self, source, options):
        self.side = options.resolution

    @classmethod
    def preference(cls, on_cuda):
        return 3 if on_cuda else 0

    def stream(self, requests):
        return (Pixels(torch.full((len(rows), self.side, self.side, 3), 128, dtype=torch.uint8)) for rows in requests)

    def pixel_recipe(self):
        return {"backend": self.name}

    def close(self):
        pass
"""


def test_a_backend_is_one_file_and_says_when_auto_takes_it(add_part: Callable[..., None]) -> None:
    usual = resolve_backend("auto")
    add_part(backends, "plain_gray", PLAIN_GRAY)
    assert "plain_gray" in parts.names(backends)
    assert resolve_backend("auto", on_cuda=True).name == "plain_gray"
    assert resolve_backend("auto") == usual
    with pytest.raises(ConfigError, match="read by the ffcv backend, not by 'plain_gray'"):
        resolve_backend("plain_gray", has_beton=True)
    index = synthetic_index(4, 2)
    with closing(open_backend("plain_gray", Source(index), BackendOptions(8, 1, 4))) as backend:
        (pixels,) = backend.stream(
            [Plan(get_policy("imagenet_train"), 0).rows(index.ids, index.ids * 0, index.widths, index.heights)]
        )
    assert pixels.images.shape == (4, 8, 8, 3)


def test_dali_asked_for_and_not_installed_names_the_pip_line() -> None:
    program = """
import sys
sys.modules["nvidia.dali"] = None  # importing it fails, as where it is not installed
from pipeline.core.errors import MissingPackageError
from pipeline.data.backend import BackendOptions, Source
from pipeline.data.backend import resolve_backend, open_backend
from pipeline.data.backends.synthetic import synthetic_index
assert resolve_backend("dali").missing().endswith("pip install nvidia-dali-cuda130")
assert resolve_backend("auto").name == "torchvision"
try:
    open_backend("dali", Source(synthetic_index(4, 2)), BackendOptions(8, 1, 4))
except MissingPackageError as error:
    assert "pip install nvidia-dali-cuda130" in str(error)
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
