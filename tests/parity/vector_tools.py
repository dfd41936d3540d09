"""What adapters of the authors' vectors share: arrays that know what was read, tensors, comparisons, one SGD step."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

RESULTS = ("out.loss", "grad.", "param_after.", "buffer_after.")
RTOL = {torch.float64: 1e-8, torch.float32: 2e-4}


class Arrays(dict[str, np.ndarray]):
    """The arrays of one file; remembers which results were looked at."""

    def __init__(self, contents: dict[str, np.ndarray]) -> None:
        super().__init__(contents)
        self._read: set[str] = set()

    def __getitem__(self, name: str) -> np.ndarray:
        self._read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._read.add(name)
        return super().get(name, default)

    def items(self) -> Iterator[tuple[str, np.ndarray]]:  # type: ignore[override]
        return ((name, self[name]) for name in list(self))

    def unread(self) -> list[str]:
        """Losses, gradients and states after a step that nobody compared."""
        return [name for name in self if _is_result(name) and name not in self._read]


def tensor(array: np.ndarray, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A copy without gradient."""
    return torch.tensor(np.asarray(array), dtype=dtype)


def leaf(array: np.ndarray) -> torch.Tensor:
    """A copy with gradient."""
    return tensor(array).requires_grad_()


def check(expected: np.ndarray, found: torch.Tensor | None, what: str) -> None:
    """Compare, up to shapes () and (1,), relative to the largest entry: float64 within 1e-8, float32 within 2e-4."""
    assert found is not None, f"{what}: no gradient has arrived"
    wanted, got = tensor(expected), found.detach()
    rtol = max(RTOL.get(wanted.dtype, 0.0), RTOL.get(got.dtype, 0.0))
    assert wanted.numel() == got.numel(), f"{what}: shape {tuple(got.shape)}, expected {tuple(wanted.shape)}"
    wanted, got = wanted.double().reshape(got.shape), got.double()
    scale = float(wanted.abs().max()) if wanted.numel() else 0.0
    torch.testing.assert_close(
        got, wanted, rtol=rtol, atol=rtol * scale * 1e-2 + 1e-15, msg=lambda text: f"{what}: {text}"
    )


def load(module: nn.Module, arrays: dict[str, np.ndarray], roles: dict[str, str]) -> None:
    """Copy parameters and buffers, "param.X" or "buffer.X" by `roles`: name in the vector -> name in the module.

    A name stands for everything below it: {"embed_s.linear": "embed_student"} copies weight and bias.
    """
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for kind in ("param.", "buffer."):
        for name, target in _pairs(arrays, kind, roles):
            with torch.no_grad():
                own[target].copy_(tensor(arrays[kind + name]).reshape(own[target].shape))


def check_gradients(module: nn.Module, arrays: dict[str, np.ndarray], roles: dict[str, str]) -> None:
    """Compare every "grad.X" that `roles` names."""
    own = dict(module.named_parameters())
    for name, target in _pairs(arrays, "grad.", roles):
        check(arrays["grad." + name], own[target].grad, f"gradient of {name}")


def check_after(module: nn.Module, arrays: dict[str, np.ndarray], roles: dict[str, str]) -> None:
    """Compare every "param_after.X" and "buffer_after.X" that `roles` names."""
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for kind in ("param_after.", "buffer_after."):
        for name, target in _pairs(arrays, kind, roles):
            check(arrays[kind + name], own[target], f"{kind}{name}")


def sgd_step(parameters: Iterable[nn.Parameter], hp: dict[str, Any]) -> None:
    """The original loops' update: momentum 0.9, one rate and one weight decay for everything."""
    torch.optim.SGD(
        list(parameters), lr=hp["learning_rate"], momentum=hp["momentum"], weight_decay=hp["weight_decay"]
    ).step()


def _is_result(name: str) -> bool:
    tail = name.split(".", 1)[1] if name.startswith("step") else name
    return tail.startswith(RESULTS)


def _pairs(arrays: dict[str, np.ndarray], kind: str, roles: dict[str, str]) -> list[tuple[str, str]]:
    pairs = []
    for full in arrays:
        name = full.removeprefix(kind)
        for source, target in roles.items():
            if full.startswith(kind) and (name == source or name.startswith(f"{source}.")):
                pairs.append((name, target + name[len(source) :]))
    return pairs
