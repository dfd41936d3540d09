"""What a precision and "--deterministic" mean to the device's libraries: their switches are set here and nowhere else.

"fp32", "off"        float32, without TF32: in convolutions, in products, and in the backward pass
"fp16", "bf16"       autocast; beside it what runs in float32 (a method's connectors) may use TF32 convolutions
half-precision sums  within a product in float32: students are compared by a teacher's low bits
deterministic        kernels that give the same bits at every start, none chosen by a stopwatch
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from pipeline.config import Precision

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_REDUCED = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
_FILL = (torch.utils.deterministic, "fill_uninitialized_memory")  # type: ignore[attr-defined]


def set_kernels(*, deterministic: bool, precision: str, warn_only: bool = False) -> None:
    """Choose kernels for the whole process.

    Must come before the first CUDA kernel: cuBLAS reads its variable once.

    Args:
        deterministic: only kernels that give the same bits at every start; slower.
        precision: of what is trained, "off" or "fp32" for float32 throughout.
        warn_only: whether a layer without a deterministic kernel is worth a warning instead of an error.
    """
    if deterministic:
        os.environ.setdefault(_WORKSPACE, ":4096:8")  # cuBLAS is deterministic with it alone
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    # whatever is made is written before it is read; filling it first would double the launches of a step
    setattr(*_FILL, False)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.allow_tf32 = half_dtype(precision) is not None
    torch.backends.cuda.matmul.allow_tf32 = False
    for name in _REDUCED:
        setattr(torch.backends.cuda.matmul, name, False)


def fix_compiler() -> None:
    """Make torch.compile give the same kernels at every start: none by a stopwatch, one set for every batch size.

    A second size would otherwise replace the kernels of the first by others for all sizes. The fields are set, since
    their environment variables were read when torchvision was imported.
    """
    torch._dynamo.config.automatic_dynamic_shapes = False
    if hasattr(torch._inductor.config, "deterministic"):  # torch 2.9 has no such field, and refuses to set it
        torch._inductor.config.deterministic = True


def fix_numerics(device: torch.device) -> None:
    """Set the whole process to kernels that give the same bits at every start on one stack: a store's.

    Must come before the first CUDA kernel and the first compilation. On the CPU a network runs on one thread: one,
    two and three gave the same bits for ResNet, MobileNet, ViT and ConvNeXt with torch 2.15, but nobody promises that.
    """
    # a layer without such a kernel is worth a warning
    set_kernels(deterministic=True, precision="fp32", warn_only=True)
    fix_compiler()
    if device.type == "cpu":
        torch.set_num_threads(1)


@contextmanager
def fixed_numerics(device: torch.device) -> Iterator[None]:
    """A block in the numerics of `fix_numerics`; what was set before is set again behind it."""
    places = [
        *((torch.backends.cudnn, name) for name in ("benchmark", "deterministic", "allow_tf32")),
        *((torch.backends.cuda.matmul, name) for name in ("allow_tf32", *_REDUCED)),
        _FILL,
        (torch._dynamo.config, "automatic_dynamic_shapes"),
        *([(torch._inductor.config, "deterministic")] if hasattr(torch._inductor.config, "deterministic") else []),
    ]
    switches = [(place, name, getattr(place, name)) for place, name in places]
    mode, threads = torch.get_deterministic_debug_mode(), torch.get_num_threads()
    workspace = os.environ.get(_WORKSPACE)
    fix_numerics(device)
    try:
        yield
    finally:
        for place, name, value in switches:
            setattr(place, name, value)
        torch.set_deterministic_debug_mode(mode)
        torch.set_num_threads(threads)
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)


def half_dtype(precision: str) -> torch.dtype | None:
    """What autocast rounds to; None for "off" and "fp32"."""
    return _AUTOCAST.get(precision)


def running_in(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A block whose forward passes run in `precision`, whatever `set_kernels` allowed the rest of the process."""
    dtype = half_dtype(precision)
    return _without_tf32() if dtype is None else torch.autocast(device.type, dtype=dtype)


@contextmanager
def _without_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def teacher_precision(asked: Precision, device: torch.device) -> Precision:
    """What "auto" means for a teacher's body on a device."""
    if asked != "auto":
        return asked
    return "fp16" if device.type == "cuda" else "fp32"


def memory_format(channels_last: bool) -> torch.memory_format:
    """How a network's images and weights lie."""
    return torch.channels_last if channels_last else torch.contiguous_format
