"""Whether a machine that cannot make the device is told why."""

from pathlib import Path

import pytest

from null_device import build, stubs


def test_without_a_compiler_the_reason_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.CannotBuildError, match="gcc is missing"):
        build.check_machine()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("cuda: Optional[str] = None", "not built for CUDA"),
        ("cuda: Optional[str] = '12.8'", "built for CUDA 12.8, and the device models 13"),
    ],
)
def test_another_torch_is_refused(line: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "version.py").write_text(f"__version__ = '2.14.0'\n{line}\n")
    with pytest.raises(build.CannotBuildError, match=reason):
        build.check_cuda(tmp_path / "version.py")


@pytest.mark.usefixtures("null_device")
def test_the_library_is_built_once() -> None:
    folder = build.library_folder()
    made = (folder / "libcuda.so.1").stat().st_mtime_ns
    build.library_folder.cache_clear()
    assert build.library_folder() == folder
    assert (folder / "libcuda.so.1").stat().st_mtime_ns == made


def test_stubs_are_made_for_what_is_imported_and_not_defined() -> None:
    imported = ["cublasSgemm_v2", "cudaMalloc", "cudaNew", "cudaGetErrorString", "cufftPlan1d", "cuFileRead", "malloc"]
    source = stubs.stubs(imported, ["cudaMalloc"])
    assert "int cublasSgemm_v2(" in source
    assert "handle_gemm(a0)" in source
    assert 'note("cudaNew")' in source
    for name in ("cudaMalloc(", "cudaGetErrorString", "cufftPlan1d", "cuFileRead", "int malloc"):
        assert name not in source
