"""Builds the null device for the torch at hand, once: a library in the user's cache, found again by what it is made of.

Neither torch nor Triton is imported for it, which would take seconds.
"""

import functools
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from null_device.stubs import stubs

HERE = Path(__file__).resolve().parent
CUDA = "13"  # whose prototypes csrc/ has
_FLAGS = ("-O2", "-fPIC", "-fvisibility=hidden", "-std=gnu11", "-Wall", "-Wno-deprecated-declarations")


class CannotBuildError(RuntimeError):
    """This machine cannot make the null device; the message says why."""


@functools.cache
def why_not() -> str | None:
    """Why tests on the null device are skipped here; None where they run."""
    try:
        library_folder()
    except CannotBuildError as error:
        return f"no null device: {error}"
    return None


@functools.cache
def library_folder() -> Path:
    """The folder that holds libcuda.so.1, built where it is not there yet (seconds); safe from several processes.

    Raises:
        CannotBuildError: with what is missing.
        RuntimeError: all is there and it does not build: csrc/ does not fit this torch.
    """
    packages = check_machine()
    folder = _cache() / _key(packages)
    if not (folder / "libcuda.so.1").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            _build(Path(scratch), packages)
            _publish(Path(scratch), folder)
    return folder


def check_machine() -> Path:
    """The folder of installed packages, if all that is needed is there.

    Raises:
        CannotBuildError: with what is missing.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise CannotBuildError(f"it is made for x86-64 Linux, this is {platform.machine()} {sys.platform}")
    for tool, package in (("gcc", "gcc"), ("nm", "binutils")):
        if shutil.which(tool) is None:
            raise CannotBuildError(f"{tool} is missing: apt-get install {package}")
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise CannotBuildError("torch is missing")
    check_cuda(Path(spec.origin).parent / "version.py")
    packages = Path(spec.origin).parent.parent
    for header in ("cuda.h", "cudnn_graph.h", "crt/host_defines.h"):
        if not any((folder / header).exists() for folder in _include_folders(packages)):
            raise CannotBuildError(f"no {header} in the wheels of nvidia and triton beside torch")
    return packages


def check_cuda(version_file: Path) -> None:
    """Refuse a torch that is built for no CUDA, or for another one."""
    version = re.search(r"^cuda\b.*?'([\d.]+)'", version_file.read_text(), re.MULTILINE)
    if version is None:
        raise CannotBuildError("this torch is not built for CUDA")
    if version[1].partition(".")[0] != CUDA:
        raise CannotBuildError(f"this torch is built for CUDA {version[1]}, and the device models {CUDA}")


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    wanted = (Path(base) if base else Path.home() / ".cache") / "reflux" / "null_device"
    try:
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir()) / f"reflux-null-device-{os.getuid()}"
    return wanted


def _sources() -> list[Path]:
    return sorted((HERE / "csrc").glob("*.c"))


def _include_folders(packages: Path) -> list[Path]:
    """The wheels' beside torch, which fit it; what of CUDA's headers they lack (crt/), Triton's wheel has."""
    triton = packages / "triton" / "backends" / "nvidia" / "include"
    return [*sorted((packages / "nvidia").glob("*/include")), triton]


def _triton(packages: Path) -> list[Path]:
    return sorted((packages / "triton" / "backends" / "nvidia").glob("driver.*"))


def _key(packages: Path) -> str:
    """A name for what goes into the library."""
    inputs = [*_sources(), HERE / "csrc" / "null.h", HERE / "stubs.py", Path(__file__)]
    inputs += [packages / "torch" / "version.py", *_triton(packages)]
    digest = hashlib.sha256(str(packages).encode())
    for path in inputs:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _build(folder: Path, packages: Path) -> None:
    """Compile, see what is still missing, make stubs of that, link."""
    options = [*_FLAGS, *(word for include in _include_folders(packages) for word in ("-isystem", str(include)))]
    _run(["gcc", *options, "-c", *map(str, _sources())], folder)
    objects = sorted(str(path) for path in folder.glob("*.o"))
    imported = _symbols("--undefined-only", "-D", *map(str, sorted((packages / "torch" / "lib").glob("*.so"))))
    called = {name for path in _triton(packages) for name in re.findall(r"\bcu[A-Z]\w+", path.read_text())}
    (folder / "stubs.c").write_text(stubs(imported | called, _symbols("--defined-only", *objects)))
    library = folder / "libcuda.so.1"
    _run(["gcc", *_FLAGS, "-shared", f"-Wl,-soname,{library.name}", "-o", str(library), *objects, "stubs.c"], folder)
    (folder / "libcuda.so").symlink_to(library.name)  # what Triton links its launchers with


def _symbols(*arguments: str) -> set[str]:
    """Names without their versions."""
    lines = _run(["nm", *arguments], HERE).splitlines()
    return {line.split()[-1].partition("@")[0] for line in lines if len(line.split()) > 1}


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the null device cannot be built: {' '.join(command[:4])} ...\n{done.stderr[-4000:]}")
    return done.stdout


def _publish(scratch: Path, folder: Path) -> None:
    """Give a finished folder its name, unless another process was faster."""
    finished = Path(tempfile.mkdtemp(dir=folder.parent))
    for name in ("libcuda.so.1", "libcuda.so"):
        shutil.move(scratch / name, finished / name)
    try:
        finished.rename(folder)
    except OSError:
        shutil.rmtree(finished)
        if not (folder / "libcuda.so.1").exists():
            raise
