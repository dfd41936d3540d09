"""Data that tests share: small generated folders, and the real samples where they are present."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import settings
from null_device.build import why_not
from PIL import Image, ImageFilter

from pipeline.data.index import Index
from pipeline.data.scan import scan_folder

# the same examples at every run, no limit on one example's time
settings.register_profile("reflux", deadline=None, derandomize=True)
settings.load_profile("reflux")

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("REFLUX_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def imagenet_sample() -> Path:
    """A folder of real ImageNet JPEGs, one folder a class; set REFLUX_TEST_DATA to the folder that holds it."""
    folder = SHARED_DATA / "imagenet-sample"
    if not folder.is_dir():
        pytest.skip(f"no real JPEGs here: {folder} is missing (set REFLUX_TEST_DATA)")
    return folder


@pytest.fixture
def add_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[ModuleType, str, str], None]]:
    """Puts one more file into a folder of parts, for as long as a test runs: `add_part(package, name, text)`."""
    added = []

    def add(package: ModuleType, name: str, text: str) -> None:
        folder = tmp_path / package.__name__
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        added.append(f"{package.__name__}.{name}")

    yield add
    for name in added:
        sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def null_device() -> None:
    """Skips where the null device cannot be made, and says why."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


def write_photo(path: Path, width: int, height: int, seed: int, **options: object) -> None:
    """A smooth random image, so that JPEG and resizing behave as they do on photographs."""
    noise = np.random.default_rng(seed).integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.filter(ImageFilter.GaussianBlur(1)).save(path, **options)


def write_photo_folder(root: Path, *, classes: int, per_class: int, seed: int) -> None:
    """A folder per class of JPEGs with varied sizes and aspect ratios."""
    rng = np.random.default_rng(seed)
    for label in range(classes):
        for number in range(per_class):
            width, height = (int(side) for side in rng.integers(48, 240, 2))
            path = root / f"class{label}" / f"{number:03d}.jpg"
            write_photo(path, width, height, seed + label * 1000 + number, quality=92)


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 generated JPEGs in 4 classes."""
    root = tmp_path_factory.mktemp("photos")
    write_photo_folder(root, classes=4, per_class=18, seed=1)
    return root


@pytest.fixture(scope="session")
def val_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 generated JPEGs in the classes of `photo_folder`: no multiple of a batch or of ranks."""
    root = tmp_path_factory.mktemp("photos-val")
    write_photo_folder(root, classes=4, per_class=5, seed=7)
    write_photo(root / "class3" / "more.jpg", 90, 70, seed=8)
    return root


@pytest.fixture(scope="session")
def photo_index(photo_folder: Path) -> Index:
    """The index of `photo_folder`."""
    return scan_folder(photo_folder)[0]
