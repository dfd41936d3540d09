"""What README promises is no more than what holds."""

from pathlib import Path

README = (Path(__file__).resolve().parent.parent.parent / "README.md").read_text()


def test_bits_are_promised_on_cuda_with_deterministic_kernels_alone() -> None:
    promise = README.partition("**Resume is exact.**")[2].partition("\n* ")[0]
    assert "bit for bit" in promise
    assert "CUDA with `--deterministic`" in promise
