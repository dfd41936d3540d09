"""Every backend of the registry keeps the backend contract."""

import subprocess
import sys
from pathlib import Path

from backend_contract import BackendContract

from pipeline.data.backend import Source, backend_names
from pipeline.data.beton import open_beton, read_beton_index
from pipeline.data.beton_writer import write_beton
from pipeline.data.index import Index


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
    assert held == set(backend_names()), "write a subclass of BackendContract here for each backend"


def test_dali_asked_for_and_not_installed_names_the_pip_line() -> None:
    program = """
import sys
sys.modules["nvidia.dali"] = None  # importing it fails, as where it is not installed
from pipeline.core.errors import MissingPackageError
from pipeline.data.backend import BackendOptions, Source
from pipeline.data.backend import choose_backend, missing, open_backend
from pipeline.data.backends.synthetic import synthetic_index
assert missing("dali").endswith("pip install nvidia-dali-cuda130")
assert choose_backend("auto", has_beton=False) == "torchvision"
try:
    open_backend("dali", Source(synthetic_index(4, 2)), BackendOptions(8, 1, 4))
except MissingPackageError as error:
    assert "pip install nvidia-dali-cuda130" in str(error)
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
