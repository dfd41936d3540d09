"""Parts found by file name: which files count, and which class of a file is the part."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.core import parts
from pipeline.core.errors import ConfigError

_FILES = {
    "plain": "from folder_of_parts._shared import Kind\nclass Plain(Kind): ...\nclass _Inner(Kind): ...\n",
    "none": "from folder_of_parts._shared import Kind\n",
    "two": "from folder_of_parts._shared import Kind\nclass One(Kind): ...\nclass Two(Kind): ...\n",
    "_shared": "class Kind: ...\n",
    "__init__": "",
    "__main__": "raise SystemExit\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "folder_of_parts").mkdir()
    for name, source in _FILES.items():
        (tmp_path / "folder_of_parts" / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    import folder_of_parts

    yield folder_of_parts
    for name in [name for name in sys.modules if name.startswith("folder_of_parts")]:
        del sys.modules[name]


def test_helpers_are_no_parts(folder: ModuleType) -> None:
    assert parts.names(folder) == ["none", "plain", "two"]
    with pytest.raises(ConfigError, match="Did you mean 'plain'"):
        parts.load(folder, "kind", "plane")


def test_the_class_of_a_file_is_its_public_one(folder: ModuleType) -> None:
    plain = parts.load(folder, "kind", "plain")
    assert parts.class_of(plain, plain.Kind) is plain.Plain
    for name, found in (("none", "has none"), ("two", "has One, Two")):
        with pytest.raises(TypeError, match=f"one public class that is a Kind, {found}"):
            parts.class_of(parts.load(folder, "kind", name), plain.Kind)
