"""Backends by name, and the choice that `--backend auto` makes."""

from pipeline.core import parts
from pipeline.core.errors import ConfigError
from pipeline.data import backends
from pipeline.data.backends.base import Backend, BackendOptions, Source

_NOT_BACKENDS = ("base", "dali_memory", "dali_proof", "pool", "quarantine", "registry")


def backend_names() -> list[str]:
    """The backends of this folder, installed or not."""
    return [name for name in parts.names(backends) if name not in _NOT_BACKENDS]


def open_backend(name: str, source: Source, options: BackendOptions) -> Backend:
    """Open backend `name`.

    Raises:
        ConfigError: unknown name, or (MissingPackageError) its package is not installed.
    """
    backend: Backend = parts.load(backends, "backend", name, known=backend_names()).open_backend(source, options)
    return backend


def missing(name: str) -> str | None:
    """Why backend `name` cannot run here, or None where it can."""
    reason: str | None = parts.load(backends, "backend", name, known=backend_names()).availability()
    return reason


def check_backend(name: str, *, has_beton: bool) -> None:
    """Refuse a backend that is unknown, not installed, or cannot read what is there; before data is looked at.

    Raises:
        ConfigError: with the reason.
    """
    reason = missing(choose_backend(name, has_beton=has_beton))
    if reason is not None:
        raise ConfigError(reason)


def choose_backend(name: str, *, has_beton: bool, on_cuda: bool = False) -> str:
    """Resolve "auto" to the fastest that is installed and fits: ffcv for a .beton, else dali, else torchvision.

    For a CUDA device dali must be of a version that has been proven on one; named, any version is taken.
    """
    if name != "auto":
        if has_beton and name != "ffcv":
            raise ConfigError(f"--beton is read by the ffcv backend, not by '{name}': leave out one of the two flags")
        return name
    if has_beton:
        return "ffcv"
    if missing("dali"):
        return "torchvision"
    proven = not on_cuda or parts.load(backends, "backend", "dali", known=backend_names()).is_proven_on_cuda()
    return "dali" if proven else "torchvision"
