"""The least that Triton can be asked: an empty kernel, to see whether kernels can be built and launched."""

import triton


def launch() -> None:
    """Build and launch the kernel on the current CUDA device, without waiting for it."""
    _kernel[(1,)]()


@triton.jit
def _kernel() -> None:
    pass
